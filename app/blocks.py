"""Small pieces of HTML that pages are made of: tiles, bars, section titles. Pure functions that escape every text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from app.tokens import alone


@dataclass(frozen=True)
class Tile:
    """One number: its name, its value and unit, a line below (an interval, say), and what it means."""

    name: str
    value: str
    unit: str = ""
    note: str = ""
    help: str = ""


@dataclass(frozen=True)
class Bar:
    """One line of a bar list. `label` and `number` are HTML; `share` is the bar's length, 0 to 1."""

    label: str
    share: float
    number: str


def tiles(items: Iterable[Tile]) -> str:
    """Numbers side by side, as many in a row as there is room for."""
    return f'<div class="sl-tiles">{"".join(_tile(item) for item in items)}</div>'


def _tile(tile: Tile) -> str:
    about = f'<span class="sl-help" tabindex="0" data-tip="{escape(tile.help)}">?</span>' if tile.help else ""
    unit = f'<span class="sl-unit">{escape(tile.unit)}</span>' if tile.unit else ""
    return (
        f'<div class="sl-tile"><div class="sl-name"><span>{escape(tile.name)}</span>{about}</div>'
        f'<div class="sl-value">{escape(tile.value)}{unit}</div><div class="sl-note">{escape(tile.note)}</div></div>'
    )


def bars(items: Sequence[Bar], kind: str) -> str:
    """Horizontal bars with a label on the left and the number on the right; `kind` picks the colour."""
    cells = "".join(
        f'<div class="sl-label">{bar.label}</div>'
        f'<div><div class="sl-bar" style="width:{100 * min(max(bar.share, 0), 1):.1f}%"></div></div>'
        f'<div class="sl-number">{bar.number}</div>'
        for bar in items
    )
    return f'<div class="sl-bars sl-{kind}">{cells}</div>'


def token_bars(items: Sequence[tuple[str, float]], kind: str, show: str = ".2f", largest: float | None = None) -> str:
    """Bars of tokens by weight; `largest` is the weight of a full bar (the largest here when left out)."""
    full = largest or max((abs(weight) for _, weight in items), default=1.0) or 1.0
    return bars([Bar(alone(token), abs(weight) / full, format(weight, show)) for token, weight in items], kind)


def titled(title: str, inner: str, aside: str = "") -> str:
    """A block under a small heading; `aside` explains it in a few words."""
    small = f"<small>{escape(aside)}</small>" if aside else ""
    return f'<section><h4 class="sl-title">{escape(title)}{small}</h4>{inner}</section>'


def facts(items: Iterable[tuple[str, str]]) -> str:
    """A line of facts under a page's title: name, then value."""
    return f'<div class="sl-head">{"".join(f"<span>{escape(n)} <b>{escape(v)}</b></span>" for n, v in items)}</div>'


def grid(head: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """A table that does not sort; `head` is (heading, CSS class of its cells) per column, cells are HTML."""
    names = "".join(f'<th scope="col" class="{classes}">{escape(name)}</th>' for name, classes in head)
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for cell, (_, kind) in zip(row, head, strict=True)) + "</tr>"
        for row in rows
    )
    inner = f'<table class="sl-table"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="sl-scroll">{inner}</div>'
