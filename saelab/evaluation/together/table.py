"""The report as a table: the whole set, then each dictionary alone."""

from __future__ import annotations

from saelab.evaluation.page import Cell, Table
from saelab.evaluation.tables import conditions, lines
from saelab.evaluation.together.report import AloneMetrics, TogetherMetrics, TogetherReport


def side_by_side(report: TogetherReport) -> Table:
    """Numbers down, the set and its members across; intervals stand in brackets behind the number."""
    columns = [(part.metrics, part.intervals.of) for part in report.alone]
    whole = {line.name: line for line in lines([(report.metrics, report.intervals.of)], TogetherMetrics)}
    alone = {line.name: line for line in lines(columns, AloneMetrics)}
    rows: list[list[Cell | str]] = []
    for name in {**whole, **alone}:
        line = whole.get(name) or alone[name]
        of_set = whole[name].values if name in whole else [None]
        each = alone[name].values if name in alone else [None] * len(columns)
        rows.append([line.title, *(cell or "–" for cell in (*of_set, *each)), line.unit])
    head = ["", "together", *(f"{part.dictionary} alone" for part in report.alone), "unit"]
    return Table(head, rows, title="Together", caption=conditions(report.about))
