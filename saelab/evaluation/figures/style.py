"""What all figures share: colours, symbols, error bars, and names that can't be taken for markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any, Final

import plotly.graph_objects as go

# After Okabe & Ito: safe for colour-blind readers, legible on light and dark.
COLOURS: Final = ("#2f8ac4", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b98a7", "#9067b0", "#b0a000")
SYMBOLS: Final = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "star", "hexagon", "x")
GREY: Final = "#8b98a7"
NARROW, WIDE = 330, 800  # pixels that a legend has in a figure among others, and alone


def colour(number: int) -> str:
    """Of the n-th name in a figure; they repeat after nine, by then with other symbols."""
    return COLOURS[number % len(COLOURS)]


def symbol(number: int) -> str:
    """Marker of the n-th name, so that colour is never the only difference."""
    return SYMBOLS[(number + number // len(COLOURS)) % len(SYMBOLS)]


def label(name: str) -> str:
    """A name as plotly shows it: tags in it are letters."""
    return escape(name, quote=False)


def error_bars(points: Iterable[tuple[float | None, float | None, float | None]]) -> dict[str, Any]:
    """From (value, low, high) to plotly's distances; an end that is undefined has no bar."""
    points = list(points)
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3,
        "array": [_distance(high, value) for value, _, high in points],
        "arrayminus": [_distance(value, low) for value, low, _ in points],
    }  # fmt: skip


def laid_out(figure: go.Figure, title: str, height: int = 400) -> go.Figure:
    """Title, size and margins."""
    return figure.update_layout(
        title={"text": label(title), "font": {"size": 15}}, height=height, hovermode="closest",
        margin={"l": 60, "r": 20, "t": 50, "b": 50}, legend={"font": {"size": 11}}, hoverlabel={"align": "left"},
    )  # fmt: skip


def legend_above(figure: go.Figure, width: int = NARROW) -> go.Figure:
    """The legend between title and plot, where it takes no width; shown for a single name too.

    Args:
        width: pixels that it has at least.
    """
    traces: Any = figure.data
    names = [trace.name for trace in traces if trace.name and trace.showlegend is not False]
    in_a_row = max(1, width // (45 + 6 * max((len(name) for name in names), default=1)))
    above = 50 + 19 * -(-len(names) // in_a_row)
    return figure.update_layout(
        showlegend=True, legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"},
        margin={"t": above}, height=figure.layout.height + above - 50,
        title={"yref": "container", "y": 1, "yanchor": "top", "pad": {"t": 15}},
    )  # fmt: skip


def _distance(high: float | None, low: float | None) -> float:
    return 0.0 if high is None or low is None else max(high - low, 0.0)
