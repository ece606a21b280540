"""The commands from words to files, on the bundled model and on GPT-2's architecture, with few prompts."""

import json
import re
from pathlib import Path

import pytest

from saelab.dictionaries.artifact import load
from saelab.evaluation.ioi.config import IoiConfig, IoiSettings, TaskSaeConfig
from saelab.evaluation.ioi.nodes import CrossSection, Node
from saelab.evaluation.ioi.report import IoiReport, json_schema
from saelab.evaluation.ioi.run import _placed, ioi
from saelab.evaluation.ioi.suite import Suite
from saelab.evaluation.report import load_report
from saelab.models import LanguageModel, Site

FEW = {
    "fit_prompts": 960, "test_prompts": 24, "patched_prompts": 12, "search_prompts": 6, "threshold": 0.1,
    "budgets": [2, 4], "resamples": 20,
}  # fmt: skip
SIZES = {"d_sae": 32, "tokens": 2000, "batch": 200}


@pytest.fixture(scope="module")
def made(demo: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ioi")
    ioi(IoiConfig.model_validate({**FEW, "train": "topk", "sae": SIZES}), directory, demo)
    return directory


@pytest.fixture(scope="module")
def report(made: Path) -> IoiReport:
    return load_report(IoiReport, made / "ioi.json")


def test_the_model_and_its_circuit(report: IoiReport) -> None:
    assert report.behaviour[0].accuracy == 1
    assert report.circuit.source == "found"
    assert report.circuit.heads["name movers"][0] == "3.0"
    assert {len(part.values) for part in report.circuit.maps} == {4}
    assert report.about.words["names, train"] == (121, 121)
    assert report.published == []


def test_supervised_edits_do_what_the_true_patch_does(report: IoiReport) -> None:
    section = report.sections[0]
    assert section.name == "(B)NM z"
    assert [part.attribute for part in section.attributes if part.carried] == ["IO"]
    by_name = {part.name: part for part in section.dictionaries}
    assert set(by_name) == {
        "supervised mean", "supervised MSE", "supervised coupled mean", "supervised coupled MSE", "PCA-16",
        "topk, frozen random decoder", "task topk",
    }  # fmt: skip
    (edits,) = by_name["supervised MSE"].control
    (no_edit,) = [part.no_edit.value for part in section.attributes if part.carried]
    accuracy = edits.edits[-1].accuracy.value
    assert no_edit is not None
    assert accuracy is not None
    assert accuracy > no_edit + 0.3
    assert [control.way for control in by_name["task topk"].control] == ["agnostic", "guided"]
    assert len(by_name["task topk"].above) == 5
    assert by_name["PCA-16"].above == []


def test_every_number_says_what_it_is(report: IoiReport) -> None:
    schema = json_schema()
    for name, part in schema["$defs"].items():
        for key, field in part["properties"].items():
            assert field.get("title"), f"{name}.{key}"
    assert schema["$defs"]["EditPart"]["properties"]["accuracy"]["unit"] == ""
    assert IoiReport.model_validate_json(report.model_dump_json()) == report


def test_the_page_needs_nothing_else(made: Path) -> None:
    page = (made / "ioi.html").read_text()
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?http', page)
    assert "Edits of IO in (B)NM z" in page
    assert page.count('class="figure"') >= 10


def test_dictionaries_are_runs(made: Path) -> None:
    run = made / "dictionaries" / "supervised-mse" / "blocks.3.attn.z.head0-END"
    assert load(run).config.kind == "supervised"
    trained = made / "dictionaries" / "task-topk" / "blocks.3.attn.z.head0-END"
    assert load(trained).config.architecture == "topk"
    assert (trained / "config.yaml").is_file()


def test_a_finished_report_is_read_and_other_settings_are_refused(saelab, made: Path) -> None:
    words = [word for key, value in FEW.items() for word in (f"--{key}", json.dumps(value))]
    words += [word for key, value in SIZES.items() for word in (f"--sae.{key}", value)]
    before = (made / "ioi.json").stat().st_mtime_ns
    again = saelab("ioi", "demo", *words, "--train", "topk", "--out", made)
    assert again.code == 0, again.err
    assert "(B)NM z" in again.out
    assert (made / "ioi.json").stat().st_mtime_ns == before
    refused = saelab("ioi", "demo", *words, "--seed", 5, "--out", made)
    assert refused.code == 2
    assert "made with other settings" in refused.err
    assert "--overwrite" in refused.err


def test_finished_dictionaries_are_judged(saelab, made: Path, tmp_path: Path) -> None:
    import shutil

    runs = []
    for name in ("blocks.3.attn.z.head0-END", "blocks.2.attn.z.head0-END"):
        runs.append(tmp_path / name)
        shutil.copytree(made / "dictionaries" / "task-topk" / name, runs[-1])
    words = [word for key, value in FEW.items() for word in (f"--{key}", json.dumps(value))]
    result = saelab("evaluate", *runs, "--suite", "ioi", *words)
    assert result.code == 0, result.err
    report = load_report(IoiReport, runs[0] / "evaluation" / "ioi.json")
    assert (runs[1] / "evaluation" / "ioi.html").is_file()
    families = {part.name for section in report.sections for part in section.dictionaries}
    assert "task topk, 32 latents, k = 3" in families
    assert report.sections[0].name.startswith("(B)NM z")
    assert report.about.dictionaries.keys() == {str(run) for run in runs}


def test_the_suite_stands_alone(saelab, made: Path) -> None:
    result = saelab("evaluate", made, "--suite", "ioi", "--suite", "fidelity")
    assert result.code == 2
    assert "without other suites" in result.err


def test_gpt2s_architecture_with_its_tokenizer(narrow_gpt2: LanguageModel) -> None:
    """Every step but the weights: the published circuit, all cross-sections, task dictionaries, the report."""
    settings = {**FEW, "circuit": "published", "carried": 0.0, "patched_prompts": 8, "budgets": [4]}
    suite = Suite(narrow_gpt2, IoiSettings.model_validate(settings))
    sections = suite.cross_sections()
    assert [section.name for section in sections] == ["(B)NM z", "(B)NM q", "S-I z", "S-I v", "Ind+DT z"]
    parts, families = suite.test(
        dict.fromkeys(sections[-2:], ()), ("topk",), TaskSaeConfig(d_sae=32, tokens=2000, batch=200)
    )
    report = suite.report(parts)
    assert report.circuit.heads["S-inhibition"] == ["7.3", "7.9", "8.6", "8.10"]
    assert len(families) == 2 + 2 * 4
    for part in parts:
        assert {control.attribute for d in part.dictionaries for control in d.control} == {"IO", "S", "Pos"}
    assert IoiReport.model_validate_json(report.model_dump_json()) == report


def test_dictionaries_are_placed_where_they_cover_a_cross_section(made: Path) -> None:
    first, second, third = (Node(Site(3, "z", 0), "END"), Node(Site(3, "z", 1), "END"), Node(Site(2, "v", 0), "S2"))
    sections = [CrossSection("(B)NM z", (first, second)), CrossSection("S-I v", (third,))]
    one = load(made / "dictionaries" / "task-topk" / "blocks.3.attn.z.head0-END")
    elsewhere = Site(1, "resid_post")
    placed = _placed(
        [("a", "task", {first.site: one, elsewhere: one}), ("b", "given", {first.site: one, second.site: one})],
        sections,
    )
    assert {section.name: [family.name for family in found] for section, found in placed.items()} == {
        "(B)NM z, 1 of 2 nodes": ["a"],
        "blocks.1.resid_post at END": ["a"],
        "blocks.1.resid_post at S2": ["a"],
        "(B)NM z": ["b"],
    }
