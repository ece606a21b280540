"""The comparison as parts of a page that an appendix could print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from saelab.evaluation import sections
from saelab.evaluation.compare import tables
from saelab.evaluation.compare.candidates import Candidate
from saelab.evaluation.compare.compare import Comparison
from saelab.evaluation.compare.report import CompareReport
from saelab.evaluation.compare.tested import DAMAGE, DETECTORS, metrics_of, title_of
from saelab.evaluation.figures import comparison as figures
from saelab.evaluation.figures import pareto
from saelab.evaluation.page import Figure, Grid, Heading, Paragraph, Part, Table
from saelab.evaluation.report import FidelityMetrics
from saelab.evaluation.reports import REPORTS
from saelab.evaluation.tables import unit_of


def title(report: CompareReport) -> str:
    """What the page is about."""
    return f"{len(report.runs)} dictionaries compared"


def parts(comparison: Comparison) -> Iterator[Part]:
    """Everything, the comparison first, then the suites one by one."""
    report, candidates = comparison
    reports = [candidate.fidelity for candidate in candidates]
    yield Paragraph(
        f"Baseline: {report.baseline}. Compared {report.created} with saelab {report.saelab_version}. "
        "Numbers are defined at the end, and with formulas in docs/metrics.md of saelab.",
        mark="faint",
    )
    for warning in report.warnings:
        yield Paragraph(warning, mark="bad")
    yield sections.dictionaries(reports)
    yield Heading("Summary")
    for suite in tables.SUMMARY:
        if any(suite in candidate.reports for candidate in candidates):
            yield tables.summary(candidates, [suite])
    yield from _curves(report, candidates)
    yield from _differences(report)
    if report.groups:
        yield Heading("Seeds")
        yield tables.seeds(report.groups)
    if report.stability:
        yield Heading("Stability")
        yield tables.stability(report.stability, report)
        yield Figure(figures.stability(report.stability))
    for suite in REPORTS:
        held = [candidate.reports[suite] for candidate in candidates if suite in candidate.reports]
        if held:
            yield from sections.of_suite(held, with_curves=False)
    yield from _ioi(candidates)
    yield from _missing(report)
    everything = [of for candidate in candidates for of in candidate.reports.values()]
    yield from sections.settings(everything)
    yield from sections.definitions(everything)


def _curves(report: CompareReport, candidates: Sequence[Candidate]) -> Iterator[Part]:
    yield Heading("Damage against sparsity")
    grid = [
        Figure(pareto.trade_off(_points(report, candidates, name), title_of(name), unit_of(FidelityMetrics, name)))
        for name in DAMAGE
    ]
    yield Grid(grid)
    seeds = " A point of several seeds is their mean, its bars go from the least to the most." if report.groups else ""
    yield Paragraph(
        "Down and to the left is better. Bars: 95 % bootstrap intervals over documents, each dictionary by itself; "
        f"the differences below are paired, so their intervals are narrower than these bars suggest.{seeds}",
        mark="faint",
    )


def _differences(report: CompareReport) -> Iterator[Part]:
    if report.pairs:
        yield Heading(f"Differences from {report.baseline}")
        known = tables.tested_of(report.pairs)
        for names in ([name for name in known if name in DAMAGE], [name for name in known if name in DETECTORS]):
            if names:
                yield tables.pairs(report, names)
                yield Grid([_difference(report, name) for name in names])
    if report.matches or report.unmatched:
        yield Heading("At the same L0")
    if report.matches:
        yield tables.matches(report)
    for sentence in report.unmatched:
        yield Paragraph(sentence)


def _difference(report: CompareReport, name: str) -> Figure:
    return Figure(figures.differences(report.pairs, name, title_of(name), unit_of(metrics_of(name), name)))


def _points(report: CompareReport, candidates: Sequence[Candidate], name: str) -> list[pareto.Point]:
    by_name = {candidate.name: candidate for candidate in candidates}
    members = {run.group: [] for run in report.runs}
    for run in report.runs:
        members[run.group].append(by_name[run.name])
    points: list[pareto.Point] = []
    for curve in report.curves:
        for knot in curve.knots:
            l0, cost = (_measured(members[knot.name], number) for number in ("l0", name))
            if l0 is not None and cost is not None:
                points.append(pareto.Point(knot.name, curve.name, l0, cost))
    return points


def _measured(members: Sequence[Candidate], name: str) -> pareto.Measured | None:
    """Of one run with its interval; of seeds their mean, from the least to the most."""
    found = [pareto.measured(member.fidelity, name) for member in members]
    known = [measured for measured in found if measured is not None]
    if len(known) < len(members):
        return None
    if len(known) == 1:
        return known[0]
    values = [measured.value for measured in known]
    return pareto.Measured(mean(values), min(values), max(values))


def _ioi(candidates: Sequence[Candidate]) -> Iterator[Part]:
    """Of the task whose answer is known: how far a dictionary stands in for the activations it was given."""
    rows = [
        [candidate.name, section.name, family.name, _short(family.sufficiency.value), _short(family.necessity.value)]
        for candidate in candidates
        if candidate.ioi is not None
        for section in candidate.ioi.sections
        for family in section.dictionaries
        if family.kind in ("full-distribution", "given")
    ]
    if rows:
        yield Heading("Indirect object identification")
        head = ["run", "cross-section", "dictionaries", "sufficiency", "necessity"]
        note = "Definitions and everything else: RUN/evaluation/ioi.html, docs/ioi.md."
        yield Table(head, rows, caption=[note], words=[1, 2])


def _missing(report: CompareReport) -> Iterator[Part]:
    if report.missing:
        yield Heading("Not measured")
        yield Table(["suite, and the command that measures it"], [[line] for line in report.missing])


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
