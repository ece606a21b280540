"""Reports as a readable table: a metric a row, a dictionary a column, the conditions below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from saelab.dictionaries.calibration import TOLERANCE
from saelab.evaluation.labels.report import LabelsReport
from saelab.evaluation.provenance import Provenance, ReportPart
from saelab.evaluation.report import FidelityReport, Interval, LeakingMetrics, ZipfLaw
from saelab.evaluation.reports import AnyReport


def table(reports: Sequence[AnyReport]) -> Table:
    """Lay reports of one suite side by side; intervals stand in brackets behind the number.

    Args:
        reports: at least one, all of the same suite.
    """
    first = reports[0]
    notes = [_conditions([r.about for r in reports]), *filter(None, map(_off_budget, reports))]
    grid = Table(title=first.suite.capitalize(), caption="\n".join(notes), caption_justify="left")
    grid.add_column("")
    for report in reports:
        grid.add_column(report.about.dictionary, justify="right")
    grid.add_column("unit", style="dim")
    for row in _rows([(report.metrics, _intervals(report)) for report in reports], type(first.metrics)):
        grid.add_row(*row)
    leaking = [report.leaking if isinstance(report, FidelityReport) else None for report in reports]
    if any(leaking):
        grid.add_section()
        grid.add_row("[bold red]leaking: latents chosen with the next token's loss in sight")
        parts = [(None, {}) if part is None else (part.metrics, part.intervals.of) for part in leaking]
        for row in _rows(parts, LeakingMetrics):
            grid.add_row(*row)
    return grid


Intervals = Mapping[str, Interval]


def _rows(columns: Sequence[tuple[ReportPart | None, Intervals]], part: type[ReportPart]) -> Iterator[list[str]]:
    """A line for each number: its title, the cell of each column, its unit."""
    for name, field in part.model_fields.items():
        cells = ["–" if metrics is None else _cell(metrics, intervals, name) for metrics, intervals in columns]
        if any(cell is not None for cell in cells):
            extra = field.json_schema_extra
            unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
            yield [field.title or name, *(cell or "–" for cell in cells), unit]


def _intervals(report: AnyReport) -> Intervals:
    return report.intervals.of if isinstance(report, FidelityReport | LabelsReport) else {}


def _cell(metrics: ReportPart, intervals: Intervals, name: str) -> str | None:
    """The number as text; None for what is not one number (histograms, laws, lists)."""
    value = getattr(metrics, name)
    if value is None:
        return "–"
    if isinstance(value, ZipfLaw):
        return f"s = {_short(value.s)} ± {_short(value.s_error)}, q = {_short(value.q)} ± {_short(value.q_error)}"
    if not isinstance(value, int | float):
        return None
    interval = intervals.get(name)
    if interval is None or interval.low is None or interval.high is None:
        return _short(value)
    return f"{_short(value)} [dim]({_short(interval.low)} … {_short(interval.high)})[/dim]"


def _off_budget(report: AnyReport) -> str | None:
    """The warning that a dictionary does not keep what it was trained to keep."""
    if isinstance(report, LabelsReport):
        return None
    about, ratio = report.about, report.metrics.l0_over_k
    if ratio is None or abs(ratio - 1) <= TOLERANCE:
        return None
    advice = "; `saelab calibrate` sets its thresholds anew" if "fixed threshold" in about.selection_rule else ""
    return (
        f"[bold red]warning:[/bold red] {about.dictionary} keeps {_short(report.metrics.l0)} latents per token where "
        f"it was trained for k = {about.k} ({ratio - 1:+.0%}){advice}"
    )


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


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
