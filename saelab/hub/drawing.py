"""Small figures as SVG: a histogram, and points with intervals. A card shows them by a relative link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 48
_INK, _FAINT, _FILL = "#22313f", "#7a8794", "#d1495b"


@dataclass(frozen=True)
class Point:
    """A named point; `low` and `high` are the ends of its interval along y."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def histogram(edges: Sequence[float], counts: Sequence[int], title: str, x: str, y: str) -> str:
    """Bars over equal or unequal bins.

    Args:
        edges: one more than `counts`, rising.
    """
    across, up = (
        _Scale(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT),
        _Scale(0, max(*counts, 1), _HEIGHT - _BOTTOM, _TOP),
    )
    bars = [
        f'<rect x="{across(low):.1f}" y="{up(count):.1f}" width="{max(across(high) - across(low) - 0.5, 0.5):.1f}" '
        f'height="{up(0) - up(count):.1f}" fill="{_FILL}"/>'
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
    ]
    return _figure(title, x, y, (edges[0], edges[-1]), (0, max(*counts, 1)), bars)


def points(found: Sequence[Point], title: str, x: str, y: str) -> str:
    """Each point with its interval and its name."""
    ends = [value for point in found for value in (point.y, point.low, point.high) if value is not None]
    (left, right), (low, high) = _room([point.x for point in found]), _room(ends)
    across, up = _Scale(left, right, _LEFT, _WIDTH - _RIGHT), _Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    marks = []
    for point in found:
        at = across(point.x)
        if point.low is not None and point.high is not None:
            low_y, high_y = up(point.low), up(point.high)
            marks.append(f'<path d="M{at:.1f} {low_y:.1f}V{high_y:.1f}" stroke="{_FILL}"/>')
        marks.append(f'<circle cx="{at:.1f}" cy="{up(point.y):.1f}" r="4" fill="{_FILL}"/>')
        anchor, shift = ("end", -7) if at > _WIDTH * 0.6 else ("start", 7)
        marks.append(_text(at + shift, up(point.y) - 6, point.name, 11, anchor))
    return _figure(title, x, y, (left, right), (low, high), marks)


def _figure(
    title: str, x: str, y: str, across: tuple[float, float], up: tuple[float, float], marks: Sequence[str]
) -> str:
    """The frame, its title and the ends of both axes around `marks`."""
    bottom, middle = _HEIGHT - _BOTTOM, (_LEFT + _WIDTH - _RIGHT) / 2
    parts = [
        *marks,
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{_WIDTH - _RIGHT}" fill="none" stroke="{_FAINT}"/>',
        _text(middle, 20, title, 14),
        _text(middle, _HEIGHT - 10, x, 12),
        f'<text transform="translate(16 {(_TOP + bottom) / 2:g}) rotate(-90)" font-size="12" text-anchor="middle" '
        f'fill="{_INK}">{escape(y)}</text>',
        _text(_LEFT, bottom + 16, _number(across[0]), 11),
        _text(_WIDTH - _RIGHT, bottom + 16, _number(across[1]), 11, "end"),
        _text(_LEFT - 5, bottom, _number(up[0]), 11, "end"),
        _text(_LEFT - 5, _TOP + 8, _number(up[1]), 11, "end"),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
        + "".join(f"\n{part}" for part in parts)
        + "\n</svg>\n"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _text(x: float, y: float, words: str, size: int, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{_INK}">{escape(words)}</text>'
    )


def _room(values: Sequence[float]) -> tuple[float, float]:
    """The range of `values` with a tenth on either side, and zero where it is near."""
    low, high = min(values), max(values)
    margin = 0.1 * ((high - low) or abs(high) or 1.0)
    return (0.0 if 0 <= low <= high - low else low - margin), high + margin


class _Scale:
    """From a range of values to a range of pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start = low, start
        self.unit = (end - start) / ((high - low) or 1.0)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.unit
