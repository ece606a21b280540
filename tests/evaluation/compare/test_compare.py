"""`saelab compare` on runs on disk: what it says, what it refuses."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from saelab.config import build
from saelab.disk import RunPaths, read_json, write_json
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.errors import UserError
from saelab.evaluation import page
from saelab.evaluation.compare.candidates import read, short_names
from saelab.evaluation.compare.compare import Comparison, compare
from saelab.evaluation.compare.complete import complete
from saelab.evaluation.compare.config import CompareConfig
from saelab.evaluation.compare.report import CompareReport, json_schema
from saelab.evaluation.compare.sections import parts, title
from saelab.evaluation.compare.tables import tables
from saelab.evaluation.printing import markdown
from saelab.evaluation.report import load_report


def compared(runs: list[Path], **settings: Any) -> Comparison:
    return compare(build(CompareConfig, {"runs": runs, "resamples": 200, **settings}, where="test"))


@pytest.fixture(scope="module")
def comparison(runs: dict[str, Path]) -> Comparison:
    return compared([runs[name] for name in ("topk-2", "topk-8", "topk-8-again", "other-4")])


@pytest.fixture
def copies(runs: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    for name, run in runs.items():
        shutil.copytree(run, tmp_path / name)
    return {name: tmp_path / name for name in runs}


def changed(path: Path, **about: Any) -> None:
    """The report with some of its conditions replaced."""
    content = read_json(path)
    content["about"] |= about
    write_json(path, content)


def test_differences_are_those_of_the_reports(comparison: Comparison) -> None:
    report, candidates = comparison
    of = {candidate.name: candidate.fidelity.metrics.model_dump() for candidate in candidates}
    assert [pair.run for pair in report.pairs] == ["topk-8", "topk-8-again", "other-4"]
    for pair in report.pairs:
        assert [part.metric for part in pair.differences] == ["l0", "delta_ce", "kl", "fvu"]
        for part in pair.differences:
            assert part.value == pytest.approx(of[pair.run][part.metric] - of["topk-2"][part.metric], abs=1e-9)
            assert (part.low or 0) <= (part.value or 0) <= (part.high or 0)
        assert pair.l0_ratio == pytest.approx(of[pair.run]["l0"] / 2)


def test_what_is_tested_is_corrected_for_all_tests(comparison: Comparison) -> None:
    for pair in comparison.report.pairs:
        assert pair.differences[0].p is None  # L0 is a condition
        for part in pair.differences[1:]:
            assert 0 < (part.p or 0) <= (part.p_holm or 0) <= 1


def test_seeds_of_the_same_settings_are_one_group(comparison: Comparison) -> None:
    report = comparison.report
    (group,) = report.groups
    assert group.members == ["topk-8", "topk-8-again"]
    assert [run.seed for run in report.runs] == [0, 0, 1, 2]
    values = [candidate.fidelity.metrics.fvu or 0 for candidate in comparison.candidates[1:3]]
    fvu = next(part for part in group.numbers if part.metric == "fvu")
    assert fvu.mean == pytest.approx(sum(values) / 2)
    assert fvu.deviation == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_a_curve_is_read_off_at_the_l0_of_another(comparison: Comparison) -> None:
    report = comparison.report
    l0 = {curve.name: [knot.l0 for knot in curve.knots] for curve in report.curves}
    assert l0 == {"topk": [2.0, pytest.approx(8, rel=0.01)], "other": [4.0]}
    (match,) = report.matches
    assert (match.curve, match.baseline) == ("other", "topk")
    assert (match.ours.left, match.ours.share) == ("other-4", 0.0)
    share = math.log(4 / 2) / math.log(l0["topk"][1] / 2)
    assert match.theirs.share == pytest.approx(share)
    of = {c.name: c.fidelity.metrics.model_dump() for c in comparison.candidates}
    for part in match.differences[1:]:
        eight = (of["topk-8"][part.metric] + of["topk-8-again"][part.metric]) / 2
        there = (1 - share) * of["topk-2"][part.metric] + share * eight
        assert part.value == pytest.approx(of["other-4"][part.metric] - there, abs=1e-9)


def test_one_dictionary_alone_is_not_interpolated(runs: dict[str, Path]) -> None:
    report = compared([runs["topk-2"], runs["other-4"]]).report
    assert report.matches == []
    assert "topk (L0 2) have no L0 in common" in report.unmatched[0]


def test_the_baseline_can_be_any_of_them(runs: dict[str, Path]) -> None:
    chosen = [runs["topk-2"], runs["topk-8"]]
    one, other = compared(chosen).report, compared(chosen, baseline=runs["topk-8"]).report
    assert (other.baseline, other.pairs[0].run) == ("topk-8", "topk-2")
    for here, there in zip(one.pairs[0].differences, other.pairs[0].differences, strict=True):
        assert there.value == -(here.value or 0)
        assert there.p == here.p
    with pytest.raises(UserError, match="is not one of the runs"):
        compared(chosen, baseline=runs["other-4"])


def test_a_copy_does_not_differ_from_its_original(copies: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(copies["topk-2"], tmp_path / "copy")
    report = compared([copies["topk-2"], tmp_path / "copy"]).report
    for part in report.pairs[0].differences:
        assert (part.value, part.low, part.high) == (0.0, 0.0, 0.0)
        assert part.p in (None, 1.0)
    assert report.stability[0].found.matched_cosine == pytest.approx(1)


def test_at_another_site_only_damage_to_the_output_is_compared(runs: dict[str, Path]) -> None:
    report = compared([runs["topk-2"], runs["elsewhere"]]).report
    assert [part.metric for part in report.pairs[0].differences] == ["l0", "delta_ce", "kl"]
    assert "stand at different sites (blocks.0.resid_post, blocks.1.resid_post)" in report.warnings[0]
    assert report.stability == []
    assert [curve.name for curve in report.curves] == ["topk, blocks.0.resid_post", "topk, blocks.1.resid_post"]


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"tokens": 601}, r"the tokens that count differs \(600 → 601\)|the tokens that count differs"),
        ({"dtype": "bfloat16"}, r"number format of the model differs \(float32 → bfloat16\)"),
        ({"model_fingerprint": "other"}, "the language model differs .* no text makes"),
        ({"corpus": {"source": "demo"}}, "the text differs .*source: microworld → demo"),
        ({"token_policy": {"context": 16}}, "the token policy differs .* train them with the same one"),
    ],
)
def test_unlike_is_not_compared_with_unlike(copies: dict[str, Path], about: dict[str, Any], said: str) -> None:
    changed(RunPaths(copies["topk-8"]).report("fidelity"), **about)
    with pytest.raises(UserError, match=f"topk-2 and topk-8 can't be compared: .*{said}"):
        compared([copies["topk-2"], copies["topk-8"]])


def test_other_documents_are_not_paired(copies: dict[str, Path]) -> None:
    paths = RunPaths(copies["topk-8"])
    tensors = read_tensors(paths.documents("fidelity"))
    write_tensors(paths.documents("fidelity"), {**tensors, "document": tensors["document"] + 1})
    with pytest.raises(UserError, match="not the file that belongs to the report beside it"):
        compared([copies["topk-2"], copies["topk-8"]])
    from saelab.disk import sha256

    content = read_json(paths.report("fidelity"))
    write_json(paths.report("fidelity"), {**content, "documents_sha256": sha256(paths.documents("fidelity"))})
    with pytest.raises(UserError, match="measured on different documents"):
        compared([copies["topk-2"], copies["topk-8"]])


def test_reports_without_sums_are_shown_unpaired(copies: dict[str, Path]) -> None:
    path = RunPaths(copies["topk-8"]).report("fidelity")
    write_json(path, {**read_json(path), "documents_sha256": None})
    report = compared([copies["topk-2"], copies["topk-8"]]).report
    assert report.pairs == report.matches == []
    assert "not paired and not tested" in report.warnings[-1]


def test_what_is_missing_is_said_with_the_command(copies: dict[str, Path]) -> None:
    chosen = [copies["topk-2"], copies["topk-8"]]
    RunPaths(copies["topk-8"]).report("sparsity").unlink()
    missing = compared(chosen).report.missing
    assert f"sparsity (topk-8): `saelab evaluate {copies['topk-8']} --suite sparsity`" in missing
    RunPaths(copies["topk-8"]).report("fidelity").unlink()
    with pytest.raises(UserError, match=rf"has no finished fidelity report; `saelab evaluate {chosen[0]} {chosen[1]}`"):
        compared(chosen)


def test_what_is_missing_is_measured_as_the_rest_was(copies: dict[str, Path]) -> None:
    chosen = [copies["topk-2"], copies["topk-8"]]
    before = RunPaths(copies["topk-8"]).report("fidelity").read_text()
    for suite in ("fidelity", "sparsity"):
        RunPaths(copies["topk-8"]).report(suite).unlink()
    complete(chosen)
    again = json.loads(RunPaths(copies["topk-8"]).report("fidelity").read_text())
    assert again["metrics"] == json.loads(before)["metrics"]
    assert compared(chosen).report.warnings == []


def test_runs_are_told_apart_by_the_fewest_parts_of_their_paths() -> None:
    assert short_names([Path("/a/x"), Path("/b/y")]) == ["x", "y"]
    assert short_names([Path("/a/x"), Path("/b/x"), Path("/b/y")]) == ["a/x", "b/x", "b/y"]


def test_a_run_given_twice_is_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="is given twice"):
        read([runs["topk-2"], runs["topk-2"] / ".." / "topk-2"])
    with pytest.raises(UserError, match="does not exist"):
        read([runs["topk-2"], Path("nowhere")])


def test_the_report_obeys_its_schema_and_comes_back(comparison: Comparison, tmp_path: Path) -> None:
    comparison.report.save(tmp_path / "compare.json")
    jsonschema.validate(read_json(tmp_path / "compare.json"), json_schema())
    assert load_report(CompareReport, tmp_path / "compare.json") == comparison.report


def test_every_number_says_what_it_is_and_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "metrics.md").read_text()
    for name in ("DifferencePart", "PairPart", "SpreadPart", "ReadingPart"):
        for key, field in json_schema()["$defs"][name]["properties"].items():
            if "unit" in field:
                assert field["title"], key
                assert f"`{key}`" in text, f"docs/metrics.md does not define {key} of a comparison"


def test_the_page_and_the_tables_say_the_same(comparison: Comparison) -> None:
    made = page.html(title(comparison.report), parts(comparison))
    assert made.startswith("<!doctype html>")
    for heading in ("Summary", "Damage against sparsity", "At the same L0", "Seeds", "Stability", "Definitions"):
        assert f">{heading}</h2>" in made
    assert made.count('class="figure"') >= 9
    printed = "\n".join(map(markdown, tables(*comparison)))
    value = comparison.report.pairs[0].differences[1].value
    assert f"{value:+.4f}" in made
    assert f"{value:+.4f}" in printed
    assert "topk-8, topk-8-again, other-4: L0 differs by more than 5%" in printed


def test_labels_are_paired_where_both_runs_have_them(copies: dict[str, Path]) -> None:
    chosen = [copies["topk-2"], copies["topk-8"]]
    about = read_json(RunPaths(chosen[0]).report("fidelity"))["about"]
    on = {"topk-2": [[1, 2], [3, 0]], "topk-8": [[2, 2], [3, 1]]}
    for name, run in zip(("topk-2", "topk-8"), chosen, strict=True):
        counts = {"document": torch.tensor([1, 3]), "positive": torch.tensor([[2, 2], [4, 2]])}
        for detector in ("best", "probe_5"):
            hits = torch.tensor(on[name], dtype=torch.int32)
            counts |= {f"{detector}.on": hits, f"{detector}.hits": hits}
        write_labels(run, about, counts)
    found = {part.metric: part for part in compared(chosen).report.pairs[0].differences}
    # Ours: 2·5/(5+6) and 2·3/(3+4); theirs: 2·4/(4+6) and 2·2/(2+4).
    expected = (10 / 11 + 6 / 7) / 2 - (8 / 10 + 4 / 6) / 2
    assert found["best_f1"].value == pytest.approx(expected)
    assert found["probe_f1_5"].value == pytest.approx(expected)


def write_labels(run: Path, about: dict[str, Any], counts: dict[str, torch.Tensor]) -> None:
    """A labels report of made-up numbers, with the counts beside it."""
    from saelab.disk import sha256
    from saelab.evaluation.labels.report import LabelsMetrics

    paths = RunPaths(run)
    write_tensors(paths.documents("labels"), counts)
    metrics = {name: 1 if field.annotation is int else None for name, field in LabelsMetrics.model_fields.items()}
    content = {
        "schema_version": 1, "suite": "labels", "about": about, "metrics": metrics,
        "intervals": {"level": 0.95, "resamples": 20, "of": {}}, "by_label": [],
        "documents_sha256": sha256(paths.documents("labels")),
    }  # fmt: skip
    write_json(paths.report("labels"), content)
