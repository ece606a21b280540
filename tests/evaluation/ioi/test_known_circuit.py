"""A model whose circuit was written by hand: the suite has to find it, and every attribute where it passes."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from saelab.disk import bundled
from saelab.evaluation.ioi.config import IoiSettings
from saelab.evaluation.ioi.report import DictionaryPart, SectionPart
from saelab.evaluation.ioi.suite import Suite
from saelab.models import LanguageModel
from scripts.wired_ioi_model import wired_model

SETTINGS = IoiSettings(
    fit_prompts=1500, test_prompts=60, patched_prompts=60, search_prompts=12, budgets=(2, 4), components=8, resamples=20
)
PASSES = {"(B)NM z": ["IO"], "(B)NM q": ["Pos"], "S-I z": ["Pos"], "S-I v": ["Pos"], "Ind+DT z": ["Pos"]}
"""Through which cross-section which attribute passes: the heads tell each other where S stands, not who it is."""


@pytest.fixture(scope="module")
def suite() -> Suite:
    tokenizer = AutoTokenizer.from_pretrained(bundled("artifacts/demo-model"))
    return Suite(LanguageModel.from_hf(wired_model(tokenizer), tokenizer, name="wired"), SETTINGS)


@pytest.fixture(scope="module")
def sections(suite: Suite) -> dict[str, SectionPart]:
    parts, _ = suite.test({section: [] for section in suite.cross_sections()})
    return {part.name: part for part in parts}


def test_the_model_does_the_task(suite: Suite) -> None:
    answers = suite.bench.answers
    assert (answers.predicted == suite.bench.test.io_ids).all()


def test_the_heads_are_found_and_no_others(suite: Suite) -> None:
    found = {role: [tuple(head) for head in heads] for role, heads in suite.bench.circuit.heads.items() if heads}
    assert found == {"name movers": [(2, 1)], "S-inhibition": [(1, 0)], "induction and duplicate token": [(0, 2)]}


def test_every_attribute_passes_where_it_was_wired_to(sections: dict[str, SectionPart]) -> None:
    found = {name: [one.attribute for one in part.attributes if one.carried] for name, part in sections.items()}
    assert found == PASSES


@pytest.mark.parametrize("section", PASSES)
def test_supervised_edits_agree_with_the_true_patch(sections: dict[str, SectionPart], section: str) -> None:
    for name in ("supervised mean", "supervised MSE"):
        part = _named(sections[section], name)
        for control in part.control:
            accuracy, no_edit = control.edits[0].accuracy.value, sections[section].attributes
            assert accuracy is not None
            assert accuracy > 0.95
            assert all((one.no_edit.value or 0) < 0.1 for one in no_edit if one.carried)


def _named(section: SectionPart, name: str) -> DictionaryPart:
    return next(part for part in section.dictionaries if part.name == name)
