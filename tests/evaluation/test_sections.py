"""What is drawn of reports: the numbers in a figure are those of the report."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest

from saelab.evaluation import page, sections
from saelab.evaluation.figures import density, labels, pareto, slices
from saelab.evaluation.labels.report import Judged, LabelScore, LabelsReport, ProbeScore
from saelab.evaluation.measure import measure
from saelab.evaluation.report import FidelityReport, SparsityReport
from saelab.evaluation.tables import as_csv, side_by_side

SITE = "blocks.0.resid_post"


def traces(figure: go.Figure) -> Any:
    """What is drawn in it."""
    return figure.data


@pytest.fixture(scope="module")
def reports(model, chunks, random_subject):
    subjects = [random_subject(SITE, seed, k=k) for seed, k in ((0, 2), (1, 8), (2, 4))]
    return measure(model, subjects, chunks, ["fidelity", "sparsity"], resamples=20)


@pytest.fixture(scope="module")
def fidelity(reports) -> list[FidelityReport]:
    return [report for report in reports if isinstance(report, FidelityReport)]


@pytest.fixture(scope="module")
def sparsity(reports) -> list[SparsityReport]:
    return [report for report in reports if isinstance(report, SparsityReport)]


def test_the_curve_runs_from_left_to_right_with_its_intervals(fidelity) -> None:
    (trace,) = traces(pareto.fidelity(fidelity, "delta_ce"))
    in_order = [fidelity[0], fidelity[2], fidelity[1]]
    assert list(trace.x) == [report.metrics.l0 for report in in_order]
    assert list(trace.y) == [report.metrics.delta_ce for report in in_order]
    for report, above, below in zip(in_order, trace.error_y.array, trace.error_y.arrayminus, strict=True):
        interval, value = report.intervals.of["delta_ce"], report.metrics.delta_ce
        assert above == pytest.approx(interval.high - value)
        assert below == pytest.approx(value - interval.low)


def test_what_is_undefined_is_not_drawn(fidelity) -> None:
    metrics = fidelity[0].metrics.model_copy(update={"fvu": None})
    shown = traces(pareto.fidelity([fidelity[0].model_copy(update={"metrics": metrics}), fidelity[1]], "fvu"))[0]
    assert len(shown.x) == 1


def test_architectures_have_lines_and_symbols_of_their_own(fidelity) -> None:
    about = fidelity[1].about.model_copy(update={"architecture": "<b>other"})
    drawn = traces(pareto.fidelity([fidelity[0], fidelity[1].model_copy(update={"about": about})], "kl"))
    assert [trace.name for trace in drawn] == ["topk", "&lt;b&gt;other"]
    assert len({trace.line.color for trace in drawn}) == len({trace.marker.symbol for trace in drawn}) == 2


def test_ranks_at_the_edges_of_the_histogram_are_exact(sparsity) -> None:
    edges, counts = [-2.0, -1.5, -1.0, 0.0], [4, 0, 3]
    metrics = sparsity[0].metrics.model_copy(update={"density_edges": edges, "density_histogram": counts, "zipf": None})
    (trace,) = traces(density.rank_density([sparsity[0].model_copy(update={"metrics": metrics})]))
    # 3 latents fire on a tenth of the tokens or more, 7 on a hundredth or more.
    assert list(trace.x) == [3, 7]
    assert list(trace.y) == pytest.approx([0.1, 0.01])


def test_the_histogram_has_a_step_for_each_bin(sparsity) -> None:
    trace = traces(density.density_histogram(sparsity))[0]
    assert list(trace.y[:-1]) == sparsity[0].metrics.density_histogram
    assert len(trace.x) == len(trace.y) == len(sparsity[0].metrics.density_edges)


def test_damage_by_position_stands_where_it_was_done(fidelity) -> None:
    trace = traces(slices.by_position(fidelity))[0]
    found = [part for part in fidelity[0].by_position or [] if part.delta_ce is not None]
    assert [x.split(" to ")[0] for x in trace.x] == [str(part.first) for part in found]
    assert list(trace.y) == [part.delta_ce for part in found]


def test_one_page_holds_every_suite_its_settings_and_definitions(reports) -> None:
    made = page.html(sections.title(reports), sections.parts(reports))
    for heading in ("Fidelity", "Sparsity", "Settings", "Definitions"):
        assert f">{heading}</h2>" in made
    assert "random-0, random-1, random-2" in sections.title(reports)
    assert "delta_ce" in made
    assert f"{reports[0].metrics.delta_ce:.4f}" in made


def test_many_dictionaries_are_split_over_tables(fidelity) -> None:
    parts = list(sections.of_suite(sections.named({f"run {i}": fidelity[0] for i in range(8)})))
    tables = [part for part in parts if isinstance(part, page.Table)]
    assert [list(table.head) for table in tables] == [
        ["", *(f"run {i}" for i in range(5)), "unit"], ["", "run 5", "run 6", "run 7", "unit"],
    ]  # fmt: skip


def test_comma_separated_values_are_unrounded(fidelity) -> None:
    rows = [line.split(",") for line in as_csv(fidelity).splitlines()]
    assert rows[0] == ["suite", "dictionary", "metric", "value", "low", "high", "unit", "tokens", "documents"]
    fvu = next(row for row in rows if row[:3] == ["fidelity", "random-1", "fvu"])
    interval = fidelity[1].intervals.of["fvu"]
    assert [float(value) for value in fvu[3:6]] == [fidelity[1].metrics.fvu, interval.low, interval.high]
    assert fvu[7:] == [str(fidelity[1].about.tokens), "5"]


def test_unlike_conditions_are_told_apart_below_the_table(fidelity) -> None:
    other = fidelity[1].model_copy(update={"about": fidelity[1].about.model_copy(update={"tokens": 7})})
    table = side_by_side([fidelity[0], other])
    assert [line.split(":")[0] for line in table.caption] == ["random-0", "random-1"]
    assert "not all of these were measured on the same text" in table.warnings[0]


def test_whoever_only_reads_reports_needs_no_torch() -> None:
    code = (
        "import sys, saelab.evaluation.sections, saelab.evaluation.page, saelab.evaluation.ioi.html;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_many_dictionaries_share_one_figure_of_all_labels() -> None:
    scores = [labelled("plural", 0.4, 0.9), labelled("noun", 0.6, 0.8)]
    report = LabelsReport.model_construct(by_label=scores, about=SimpleNamespace(dictionary="one"))
    ceiling, points = traces(labels.across([report]))
    assert list(ceiling.y) == ["noun", "plural"]
    assert list(ceiling.x) == [0.8, 0.9]
    assert dict(zip(points.y, points.x, strict=True)) == {"plural": 0.4, "noun": 0.6}
    (_, best, *probes) = traces(labels.by_label(report))
    assert dict(zip(best.y, best.x, strict=True)) == {"plural": 0.1, "noun": 0.1}
    assert [list(trace.x) for trace in probes] == [[0.6, 0.4]] * 3


def labelled(name: str, probe: float, dense: float) -> LabelScore:
    """A label with the same F1 for probes of one, two and more latents."""
    numbers = {"precision": None, "recall": None, "auroc": None}
    probes = [ProbeScore(f1=probe, latents=tuple(range(k)), **numbers) for k in range(1, 6)]
    return LabelScore(
        label=name, positives=10, latent=3, threshold=0.0, best=Judged(f1=0.1, **numbers), probes=probes, splits=1,
        parts_95=None, dense=Judged(f1=dense, **numbers), absorption=None,
    )  # fmt: skip
