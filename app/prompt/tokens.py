"""A text as a row of tokens that can be clicked, coloured by one number for each. Everything is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app import links
from app.tokens import in_text, quoted

REASONS = {
    1: "padding",
    2: "the first token, where models park attention",
    3: "special tokens, which are no text",
    4: "attention sinks, whose activations are unusually long",
    5: "tokens that were not sampled",
}  # by `saelab.corpora.rows.Reason`


@dataclass(frozen=True)
class Cell:
    """One token: its text, the number that colours it (NaN for none), what the pointer shows, where a click leads."""

    word: str
    value: float
    tip: str
    query: dict[str, object]
    is_chosen: bool = False
    is_left_out: bool = False


def strip(cells: Sequence[Cell], maximum: float, page: str, classes: str = "") -> str:
    """The tokens as running text, linked to `page`; a full colour stands for `maximum`.

    Args:
        classes: more CSS classes of the links.
    """
    return f'<p class="sl-strip">{"".join(_cell(cell, maximum, page, f" {classes}".rstrip()) for cell in cells)}</p>'


def _cell(cell: Cell, maximum: float, page: str, classes: str) -> str:
    strength = 0 if math.isnan(cell.value) or maximum <= 0 else round(100 * min(max(cell.value / maximum, 0.0), 1.0))
    kind = (" sl-picked" if cell.is_chosen else "") + (" sl-left-out" if cell.is_left_out else "")
    # A word's leading space stays outside the colour: it would hang at the end of the line before.
    word = cell.word.lstrip(" ") or cell.word
    space = cell.word[: len(cell.word) - len(word)]
    address = escape(links.href(page, **cell.query))
    current = ' aria-current="true"' if cell.is_chosen else ""
    return (
        f'{space}<a class="sl-link sl-token sl-pick{classes}{kind}" target="_self" href="{address}"{current} '
        f'style="--a:{strength}" data-tip="{escape(quoted(cell.word) + cell.tip)}">{in_text(word) or "∅"}</a>'
    )


def scale(maximum: float, what: str) -> str:
    """The colour scale of `strip`, from 0 to `maximum`, and what it measures."""
    return (
        '<div class="sl-legend"><span>0</span><span class="sl-scale" role="img" aria-label="colour scale: deeper is '
        f'more"></span><span>{maximum:.3g}</span><span class="sl-faint">{escape(what)}</span></div>'
    )
