"""Reports as a readable table: a metric a row, a dictionary a column, the conditions below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from saelab.evaluation.report import AnyReport, FidelityReport, Provenance, ZipfLaw


def table(reports: Sequence[AnyReport]) -> Table:
    """Lay reports of one suite side by side; intervals stand in brackets behind the number.

    Args:
        reports: at least one, all of the same suite.
    """
    first = reports[0]
    grid = Table(
        title=first.suite.capitalize(), caption=_conditions([r.about for r in reports]), caption_justify="left"
    )
    grid.add_column("")
    for report in reports:
        grid.add_column(report.about.dictionary, justify="right")
    grid.add_column("unit", style="dim")
    for name, field in type(first.metrics).model_fields.items():
        cells = [_cell(report, name) for report in reports]
        if any(cell is not None for cell in cells):
            extra = field.json_schema_extra
            unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
            grid.add_row(field.title or name, *(cell or "–" for cell in cells), unit)
    return grid


def _cell(report: AnyReport, name: str) -> str | None:
    """The number as text; None for what is not one number (histograms, laws, lists)."""
    value = getattr(report.metrics, name)
    if value is None:
        return "–"
    if isinstance(value, ZipfLaw):
        return f"s = {_short(value.s)} ± {_short(value.s_error)}, q = {_short(value.q)}"
    if not isinstance(value, int | float):
        return None
    interval = report.intervals.of.get(name) if isinstance(report, FidelityReport) else None
    if interval is None or interval.low is None or interval.high is None:
        return _short(value)
    return f"{_short(value)} [dim]({_short(interval.low)} … {_short(interval.high)})[/dim]"


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def _conditions(abouts: Sequence[Provenance]) -> str:
    about = abouts[0]
    models, sites, rules = (
        ", ".join(dict.fromkeys(getattr(a, name) for a in abouts)) for name in ("model", "site", "selection_rule")
    )
    text = "" if about.corpus is None else f" of {about.corpus['source']} ({about.corpus['split']} split)"
    return (
        f"{models} at {sites} · {about.tokens:,} tokens of {about.documents:,} documents{text} "
        f"({about.excluded:,} positions excluded), {about.predictions:,} predictions · selection: {rules} · "
        f"model in {about.dtype} · intervals: 95 % bootstrap over documents, seed {about.seed}"
    )
