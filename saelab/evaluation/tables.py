"""Reports as tables: a metric a row, a dictionary a column, the conditions below; and as rows of plain numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from rich.table import Table as RichTable

from saelab.dictionaries.config import BUDGET_TOLERANCE
from saelab.evaluation.page import Cell, Table
from saelab.evaluation.printing import rich_table
from saelab.evaluation.provenance import Provenance, ReportPart
from saelab.evaluation.report import FidelityReport, Interval, LeakingMetrics, SparsityReport, ZipfLaw
from saelab.evaluation.reports import AnyReport

Intervals = Mapping[str, Interval]

DIVIDER: Final = "leaking: latents chosen with the next token's loss in sight"


class Line(NamedTuple):
    """One number of a report."""

    name: str
    title: str
    unit: str
    values: list[Cell | None]
    """A cell for each dictionary; None where the report has no such part."""


def table(reports: Sequence[AnyReport]) -> RichTable:
    """Reports of one suite side by side, for a terminal; intervals stand in brackets behind the number.

    Args:
        reports: at least one, all of the same suite.
    """
    return rich_table(side_by_side(reports))


def side_by_side(reports: Sequence[AnyReport]) -> Table:
    """Reports of one suite side by side; intervals stand in brackets behind the number.

    Args:
        reports: at least one, all of the same suite.
    """
    first = reports[0]
    head = ["", *(report.about.dictionary for report in reports), "unit"]
    rows: list[list[Cell | str]] = []
    for line in lines([(report.metrics, intervals_of(report)) for report in reports], type(first.metrics)):
        rows.append([line.title, *(cell or "–" for cell in line.values), line.unit])
    leaking = [report.leaking if isinstance(report, FidelityReport) else None for report in reports]
    if any(leaking):
        rows.append([Cell(DIVIDER, mark="bad")])
        parts = [(None, {}) if part is None else (part.metrics, part.intervals.of) for part in leaking]
        for line in lines(parts, LeakingMetrics):
            rows.append([line.title, *(cell or "–" for cell in line.values), line.unit])
    notes = conditions([report.about for report in reports])
    warnings = list(filter(None, map(off_budget, reports)))
    if len(notes) > 1:
        warnings.append("warning: not all of these were measured on the same text under the same conditions")
    return Table(head, rows, title=first.suite.capitalize(), caption=notes, warnings=warnings)


def lines(columns: Sequence[tuple[ReportPart | None, Intervals]], part: type[ReportPart]) -> Iterator[Line]:
    """A line for each number of `part`: its title, the cell of each column, its unit."""
    for name, field in part.model_fields.items():
        cells = [None if metrics is None else _cell(metrics, intervals, name) for metrics, intervals in columns]
        if any(cell is not None for cell in cells):
            yield Line(name, field.title or name, unit_of(part, name), cells)


def unit_of(part: type[ReportPart], name: str) -> str:
    """What a field is counted in; "" for a pure ratio."""
    extra = part.model_fields[name].json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def intervals_of(report: AnyReport) -> Intervals:
    """By name of the number; empty for a suite that counts and does not estimate."""
    intervals = getattr(report, "intervals", None)
    return {} if intervals is None else intervals.of


def as_csv(reports: Sequence[AnyReport]) -> str:
    """A number a line, unrounded: suite, dictionary, name, value, ends of its interval, unit, tokens."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["suite", "dictionary", "metric", "value", "low", "high", "unit", "tokens", "documents"])
    for report in reports:
        groups: list[tuple[str, ReportPart, Intervals]] = [("", report.metrics, intervals_of(report))]
        if isinstance(report, FidelityReport) and report.leaking is not None:
            groups.append(("leaking.", report.leaking.metrics, report.leaking.intervals.of))
        for prefix, metrics, intervals in groups:
            for name in type(metrics).model_fields:
                value, interval = getattr(metrics, name), intervals.get(name)
                if not isinstance(value, int | float | None):
                    continue
                ends = ("", "") if interval is None else (interval.low, interval.high)
                unit = unit_of(type(metrics), name)
                of = report.about
                writer.writerow(
                    [report.suite, of.dictionary, prefix + name, value, *ends, unit, of.tokens, of.documents]
                )
    return file.getvalue()


def _cell(metrics: ReportPart, intervals: Intervals, name: str) -> Cell | None:
    """The number as text; None for what is not one number (histograms, laws, lists)."""
    value = getattr(metrics, name)
    if value is None:
        return Cell("–")
    if isinstance(value, ZipfLaw):
        return Cell(f"s = {_about(value.s, value.s_error)}", f"q = {_about(value.q, value.q_error)}")
    if not isinstance(value, int | float):
        return None
    interval = intervals.get(name)
    if interval is None or interval.low is None or interval.high is None:
        return Cell(short(value))
    return Cell(short(value), f"({short(interval.low)} … {short(interval.high)})")


def _about(value: float | None, error: float | None) -> str:
    return "–" if value is None or error is None else f"{value:.3g} ± {error:.1g}"


def off_budget(report: AnyReport) -> str | None:
    """The warning that a dictionary does not keep what it was trained to keep."""
    if not isinstance(report, FidelityReport | SparsityReport):
        return None
    about, ratio = report.about, report.metrics.l0_over_k
    if ratio is None or abs(ratio - 1) <= BUDGET_TOLERANCE:
        return None
    advice = "; `saelab calibrate` sets its thresholds anew" if "fixed threshold" in about.selection_rule else ""
    return (
        f"warning: {about.dictionary} keeps {short(report.metrics.l0)} latents per token where "
        f"it was trained for k = {about.k} ({ratio - 1:+.0%}){advice}"
    )


def short(value: float | None) -> str:
    """Four decimals in the middle range, three digits outside it, whole numbers as they are."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def conditions(abouts: Sequence[Provenance]) -> list[str]:
    """On what the numbers were measured: a sentence for each of the conditions that dictionaries share."""
    shared: dict[str, list[Provenance]] = {}
    for about in abouts:
        names = {"tokens", "excluded", "predictions", "documents", "corpus", "token_policy", "dtype", "seed"}
        shared.setdefault(about.model_dump_json(include=names), []).append(about)
    if len(shared) == 1:
        return [_conditions(abouts)]
    return [f"{', '.join(a.dictionary for a in together)}: {_conditions(together)}" for together in shared.values()]


def _conditions(abouts: Sequence[Provenance]) -> str:
    about = abouts[0]
    models, rules = (", ".join(dict.fromkeys(getattr(a, name) for a in abouts)) for name in ("model", "selection_rule"))
    sites = ", ".join(dict.fromkeys(" → ".join([a.site, *filter(None, [" + ".join(a.targets)])]) for a in abouts))
    text = "" if about.corpus is None else f" of {about.corpus['source']} ({about.corpus['split']} split)"
    return (
        f"{models} at {sites} · {about.tokens:,} tokens of {about.documents:,} documents{text} "
        f"({about.excluded:,} positions excluded), {about.predictions:,} predictions · selection: {rules} · "
        f"model in {about.dtype} · intervals: 95 % bootstrap over documents, seed {about.seed}"
    )
