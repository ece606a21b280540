"""A table in our own HTML: headings that sort by link, so that the address holds the order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from app import links


@dataclass(frozen=True)
class Column:
    """A column: the name it is sorted by, its heading, what it means, and how it is shown."""

    name: str
    heading: str
    help: str
    is_number: bool = True
    largest_first: bool = True
    sortable: bool = True
    wraps: bool = False


@dataclass(frozen=True)
class Order:
    """By which column, and whether the largest come first."""

    column: str
    descending: bool

    @classmethod
    def from_address(cls, query: Mapping[str, str], columns: Sequence[Column], default: str) -> Order:
        """What the address asks for (`sort`, `order`), if there is such a column; else `default`, largest first."""
        asked = query.get("sort", default)
        known = any(column.name == asked and column.sortable for column in columns)
        return cls(asked if known else default, query.get("order", "down") != "up")


@dataclass(frozen=True)
class Page:
    """Which of `total` rows are shown: page `number`, from 0, of `size` rows each."""

    number: int
    size: int
    total: int

    @classmethod
    def from_address(cls, query: Mapping[str, str], total: int, size: int) -> Page:
        """The page that the address asks for (`page`): the first for anything but a number, the last past the end."""
        asked = query.get("page", "0")
        number = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 8 else 0
        return cls(min(number, max(total - 1, 0) // size), size, total)

    @property
    def rows(self) -> slice:
        return slice(self.number * self.size, (self.number + 1) * self.size)

    def pager(self, page: str, query: Mapping[str, str], classes: str = "") -> str:
        """Which rows these are, and links to those before and after, with these CSS classes."""
        last = max(self.total - 1, 0) // self.size
        first, end = self.rows.start + 1, min(self.rows.stop, self.total)
        steps = [("← Back", self.number - 1, self.number > 0), ("More →", self.number + 1, self.number < last)]
        parts = [
            links.anchor(name, page, classes, **{**query, "page": str(to)}) for name, to, possible in steps if possible
        ]
        shown = f'<span class="sl-faint">{first:,}–{end:,} of {self.total:,}</span>'
        return f'<div class="sl-pager">{shown}{"".join(parts)}</div>'


def table(
    page: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    order: Order,
    query: Mapping[str, str],
    classes: str = "",
) -> str:
    """The table; `rows` hold one cell of HTML per column, `query` is the address without the order.

    Args:
        classes: CSS classes of the links in the headings.
    """
    head = "".join(_heading(page, column, order, query, classes) for column in columns)
    body = "".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    inner = f'<table class="sl-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="sl-scroll">{inner}</div>'


def _cells(columns: Sequence[Column], row: Sequence[str]) -> str:
    classes = {(True, False): ' class="sl-number"', (False, True): ' class="sl-wraps"'}
    return "".join(
        f"<td{classes.get((column.is_number, column.wraps), '')}>{cell}</td>"
        for column, cell in zip(columns, row, strict=True)
    )


def _heading(page: str, column: Column, order: Order, query: Mapping[str, str], classes: str) -> str:
    attributes = f' title="{escape(column.help)}"' + (' class="sl-number"' if column.is_number else "")
    if not column.sortable:
        return f"<th{attributes}>{column.heading}</th>"
    is_sorted = order.column == column.name
    down = not order.descending if is_sorted else column.largest_first
    arrow = (" ↓" if order.descending else " ↑") if is_sorted else ""
    target = {**query, "sort": column.name, "order": "down" if down else "up", "page": None}
    return f"<th{attributes}>{links.anchor(column.heading + arrow, page, classes, **target)}</th>"
