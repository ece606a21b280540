"""Reports as files and as tables."""

import io
import json
from dataclasses import replace

import jsonschema
import pytest
import torch
from rich.console import Console

from saelab.dictionaries.config import JumpRelu, MutualChoice, SparsityPenalty
from saelab.errors import UserError
from saelab.evaluation.measure import measure
from saelab.evaluation.report import FidelityReport, SparsityReport, load_report
from saelab.evaluation.reports import REPORTS, json_schema
from saelab.evaluation.tables import table

SITE = "blocks.0.resid_post"


@pytest.fixture(scope="module")
def reports(model, chunks, random_subject):
    subjects = [random_subject(SITE, seed) for seed in (0, 1)]
    return measure(model, subjects, chunks, ["fidelity", "sparsity"], resamples=20)


def printed(reports) -> str:
    file = io.StringIO()
    Console(width=200, file=file).print(table(reports))
    return file.getvalue()


def numbers_of(schema: dict, name: str) -> dict[str, dict]:
    return schema["$defs"][name]["properties"]


@pytest.mark.parametrize(("suite", "part"), [("fidelity", "FidelityMetrics"), ("sparsity", "SparsityMetrics")])
def test_every_number_has_title_description_and_unit(suite, part: str):
    for name, field in numbers_of(json_schema(suite), part).items():
        assert field["title"], name
        assert field["description"], name
        assert isinstance(field["unit"], str), name


def test_a_report_comes_back_as_it_was_saved(reports, tmp_path):
    for report in reports:
        path = tmp_path / "evaluation" / f"{report.suite}.json"
        report.save(path)
        assert load_report(type(report), path) == report


def test_saved_reports_obey_the_published_schema(reports, tmp_path):
    for report in reports:
        path = tmp_path / "report.json"
        report.save(path)
        jsonschema.validate(json.loads(path.read_text()), json_schema(report.suite))


def test_undefined_numbers_are_null(reports):
    metrics = FidelityReport.model_validate(reports[0].model_dump()).metrics
    undefined = type(metrics).model_validate({**metrics.model_dump(), "kl": float("nan"), "fvu": float("inf")})
    assert undefined.kl is None
    assert undefined.fvu is None


def test_another_schema_version_is_refused(reports, tmp_path):
    path = tmp_path / "fidelity.json"
    path.write_text(json.dumps({**reports[0].model_dump(mode="json"), "schema_version": 99}))
    with pytest.raises(UserError, match="schema version 99"):
        load_report(FidelityReport, path)


def test_a_report_of_another_suite_is_refused(reports, tmp_path):
    reports[0].save(tmp_path / "fidelity.json")
    with pytest.raises(UserError, match="is not a SparsityReport"):
        load_report(SparsityReport, tmp_path / "fidelity.json")


def test_the_table_shows_numbers_units_and_conditions(reports):
    fidelity = [report for report in reports if isinstance(report, FidelityReport)]
    text = printed(fidelity)
    assert "random-0" in text
    assert "random-1" in text
    assert f"{fidelity[0].metrics.ce_clean:.4f}" in text
    assert "nats/token" in text
    assert f"{fidelity[0].about.tokens:,} tokens of 5 documents" in text


def test_the_table_of_sparsity_leaves_lists_out(reports):
    text = printed([report for report in reports if isinstance(report, SparsityReport)])
    assert "Dead latents" in text
    assert "histogram" not in text


def test_every_number_is_defined_in_the_documentation(repository):
    text = (repository / "docs" / "metrics.md").read_text()
    for suite in REPORTS:
        for name in numbers_of(json_schema(suite), f"{suite.capitalize()}Metrics"):
            assert f"`{name}`" in text, f"docs/metrics.md does not define {suite}'s {name}"


def test_a_dictionary_that_misses_its_budget_is_warned_of(model, chunks, make_subject):
    # The latents ±coordinate above 0: 16 fire on every token, whatever k says.
    eye = torch.eye(16)
    weights = torch.cat([eye, -eye])
    texts = {}
    for k in (16, 12):
        subject = make_subject(SITE, weights, weights, threshold=0.0, k=k)
        config = subject.dictionary.config.model_copy(update={"allocation": MutualChoice()})
        subject = replace(subject, dictionary=replace(subject.dictionary, config=config))
        both = measure(model, [subject], chunks, ["fidelity", "sparsity"], resamples=20)
        assert [report.metrics.model_dump()["l0_over_k"] for report in both] == pytest.approx([16 / k] * 2)
        texts[k] = [" ".join(printed([report]).split()) for report in both]
    for text in texts[12]:
        assert "warning: test keeps 16.0000 latents per token where it was trained for k = 12 (+33%)" in text
        assert "saelab calibrate" in text
    assert not any("warning" in text for text in texts[16])


def test_a_fixed_price_is_no_budget(model, chunks, random_subject):
    subject = random_subject(SITE)
    for coefficient, expected in ((None, 1.0), (0.1, None)):
        allocation = JumpRelu(penalty=SparsityPenalty(coefficient=coefficient))
        config = subject.dictionary.config.model_copy(update={"allocation": allocation})
        changed = replace(subject, dictionary=replace(subject.dictionary, config=config))
        (report,) = measure(model, [changed], chunks, ["sparsity"])
        assert report.metrics.model_dump()["l0_over_k"] == expected
