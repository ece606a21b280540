"""Tables for a terminal, as markdown, and as comma-separated values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.markup import escape
from rich.table import Table as RichTable

from saelab.evaluation.page import Cell, Mark, Table

_STYLES: Final[dict[Mark, str]] = {"": "", "good": "green", "bad": "bold red", "faint": "dim"}


def rich_table(table: Table) -> RichTable:
    """For a rich console; names with brackets in them stay as they are."""
    notes = [escape(line) for line in table.caption] + [f"[bold red]{escape(line)}[/]" for line in table.warnings]
    grid = RichTable(title=escape(table.title), caption="\n".join(notes), caption_justify="left")
    for place, name in enumerate(table.head):
        last = place == len(table.head) - 1 and name == "unit"
        side = "left" if place == 0 or last or place in table.words else "right"
        grid.add_column(escape(name), justify=side, style="dim" if last else None, overflow="fold")
    for row in table.cells():
        if len(row) == 1 and len(table.head) > 1:
            grid.add_section()
        grid.add_row(*map(_rich, row))
    return grid


def markdown(table: Table) -> str:
    """Title, a table whose columns line up in plain text too, and the caption; intervals stand behind the numbers."""
    rows = [[cell.plain for cell in row] + [""] * (len(table.head) - len(row)) for row in table.cells()]
    lines = [f"**{table.title}**", ""] if table.title else []
    lines.append(markdown_rows(table.head, rows))
    for sentence in (*table.warnings, *table.caption):
        lines += ["", sentence]
    return "\n".join(lines)


def markdown_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table alone; the first column is flush left, the others right."""
    head, rows = _safe(head), [_safe(row) for row in rows]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def _safe(cells: Sequence[str]) -> list[str]:
    """A bar or a line break in a name would end its cell."""
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]


def _rich(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.mark:
        text = f"[{_STYLES[cell.mark]}]{text}[/]"
    return f"{text} [dim]{escape(cell.faint)}[/dim]" if cell.faint else text
