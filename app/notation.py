"""Numbers as people read them: enough digits, a unit, no false precision. And names, safe from Markdown."""

from __future__ import annotations

import re


def short(value: float | None) -> str:
    """Three or so significant digits; whole numbers with separators; a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}" if size >= 1e-3 else f"{value:.1e}"


def percent(share: float | None) -> str:
    """A share as a percentage with at least two significant digits."""
    if share is None:
        return "–"
    value = 100 * share
    if value == 0:
        return "0%"
    for limit, digits in ((10, 1), (0.1, 2), (0.01, 3), (0.001, 4)):
        if abs(value) >= limit:
            return f"{value:.{digits}f}%"
    return f"{value:.1e}%"


def signed(value: float, digits: int) -> str:
    """A difference with its sign; what rounds to 0 has none."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


def counted(value: int) -> str:
    """A count in the house's own notation: 512, 24.6k, 1.2M."""
    for limit, letter in ((10**9, "B"), (10**6, "M"), (10**4, "k")):
        if value >= limit:
            return f"{value / (1000 if letter == 'k' else limit):.3g}{letter}"
    return f"{value:,}"


def plain(text: str) -> str:
    """A name (of a folder, say) for a place that Streamlit reads as Markdown: shown as it is written."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~:$<>&])", r"\\\1", text)
