"""Curves over one quantity as a small drawing of our own, which a page can send at every change: no script draws it.

Lines are an SVG image that is stretched to the room there is; numbers and names around it are text. The pointer shows
the values of all curves where it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from app.figures import GROUPS
from saelab.evaluation.figures.style import GREY

_FRAME = 'viewBox="0 0 100 100" preserveAspectRatio="none" fill="none"'
_THIN = 'vector-effect="non-scaling-stroke"'  # however the drawing is stretched


@dataclass(frozen=True)
class Axis:
    """Part of the numbers that is drawn, its ticks, and what it measures."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def around(cls, title: str, values: Sequence[float], n: int) -> Axis:
        """Holds 0 and all the values, with about `n` round ticks."""
        low, high = min([*values, 0.0]), max([*values, 0.0])
        high = high if high > low else low + 1.0
        edge = 0.04 * (high - low)
        return cls(title, low - edge, high + edge, round_steps(low, high, n))

    def share(self, value: float) -> float:
        """How far along it a value lies, in percent."""
        return 100 * (value - self.low) / (self.high - self.low)


def curves(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_title: str,
    y_title: str,
    marked: Sequence[float] = (),
    show: str = "+.3f",
) -> str:
    """A line for each of `lines` over ascending `x`, with dotted ones at the `marked` places; as HTML, escaped.

    Args:
        show: how the pointer's numbers are written. Values that are not finite are left out of their line.
    """
    across = Axis.around(x_title, x, 5)
    up = Axis.around(y_title, [value for values in lines.values() for value in values if math.isfinite(value)], 4)
    colours = {name: GROUPS[number % len(GROUPS)] for number, name in enumerate(lines)}
    ruled = [_rule(0, 100 - up.share(tick), 100, 100 - up.share(tick)) for tick in up.ticks]
    ruled += [_rule(across.share(at), 0, across.share(at), 100, ' stroke-dasharray="2 3"') for at in marked]
    drawn = [_line(list(zip(x, values, strict=True)), across, up, colours[name]) for name, values in lines.items()]
    image = f'<svg xmlns="http://www.w3.org/2000/svg" {_FRAME}>{"".join(ruled)}{"".join(drawn)}</svg>'
    key = "".join(
        f'<span><i class="sl-swatch" style="background:{colours[name]}"></i>{escape(name)}</span>' for name in lines
    )
    return (
        f'<div class="sl-curves" role="img" aria-label="{escape(f"{y_title} over {x_title}")}">'
        f'<div class="sl-key">{key}</div><div class="sl-y-title">{escape(y_title)}</div>'
        f'<div class="sl-y-ticks">{_ticks(up, "bottom")}</div>'
        f'<div class="sl-area"><img alt="" src="data:image/svg+xml,{quote(image)}">'
        f"{_columns(x, lines, across, show)}</div>"
        f'<div class="sl-x-ticks">{_ticks(across, "left")}</div><div class="sl-x-title">{escape(x_title)}</div></div>'
    )


def round_steps(low: float, high: float, n: int) -> list[float]:
    """About `n` multiples of 1, 2 or 5 times a power of ten, from `low` to `high`; 0 is among them if it lies there."""
    rough = (high - low) / n
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _rule(x1: float, y1: float, x2: float, y2: float, more: str = "") -> str:
    return f'<path {_THIN} stroke="{GREY}" stroke-opacity=".45" d="M{x1:.2f} {y1:.2f}L{x2:.2f} {y2:.2f}"{more}/>'


def _line(points: Sequence[tuple[float, float]], across: Axis, up: Axis, colour: str) -> str:
    """The line, and its points as strokes without length: circles would be stretched with the drawing."""
    places = [f"{across.share(x):.2f} {100 - up.share(y):.2f}" for x, y in points if math.isfinite(y)]
    if not places:
        return ""
    path, dots = f"M{'L'.join(places)}", "".join(f"M{place}h0" for place in places)
    return (
        f'<path {_THIN} stroke="{colour}" stroke-width="2" stroke-linejoin="round" d="{path}"/>'
        f'<path {_THIN} stroke="{colour}" stroke-width="5.5" stroke-linecap="round" d="{dots}"/>'
    )


def _columns(x: Sequence[float], lines: Mapping[str, Sequence[float]], across: Axis, show: str) -> str:
    """Where the pointer finds the values: a column around each place, up to halfway to the next."""
    edges = [across.low, *((a + b) / 2 for a, b in itertools.pairwise(x)), across.high]
    columns: list[str] = []
    for number, at in enumerate(x):
        left, right = across.share(edges[number]), across.share(edges[number + 1])
        said = [f"{across.title} {at:.4g}", *(f"{name} {values[number]:{show}}" for name, values in lines.items())]
        side = " sl-late" if left > 50 else ""
        columns.append(
            f'<i class="sl-column{side}" style="left:{left:.2f}%;width:{right - left:.2f}%" '
            f'data-tip="{escape(chr(10).join(said))}"></i>'
        )
    return "".join(columns)


def _ticks(axis: Axis, side: str) -> str:
    return "".join(f'<span style="{side}:{axis.share(tick):.2f}%">{tick:.4g}</span>' for tick in axis.ticks)
