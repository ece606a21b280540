"""Bars inside a table's cells: a length that is compared down a column, with the number beside it."""

from __future__ import annotations

from html import escape


def bar(kind: str, share: float, number: str) -> str:
    """`share` of a full bar, 0 to 1; `kind` picks the colour as in `blocks.bars`."""
    width = 100 * min(max(share, 0.0), 1.0)
    filled = f'<div class="sl-bar" style="width:{width:.1f}%"></div>' if width else ""
    return f'<div class="sl-cell sl-{kind}"><div>{filled}</div><span>{escape(number)}</span></div>'


def signed_bar(value: float, largest: float, show: str = "+.3f") -> str:
    """A bar as long as |value| is of `largest`: one colour above 0, another below, and the sign on the number."""
    share = abs(value) / largest if largest else 0.0
    return bar("promoted" if value >= 0 else "suppressed", share, format(value, show))
