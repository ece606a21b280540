"""Plotly figures: plain numbers in, a `Figure` out. Fonts and the light or dark ground come from the app's theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

BLUE, VERMILION, AMBER, GREEN = (
    "#2f8ac4",
    "#d55e00",
    "#e69f00",
    "#009e73",
)  # after Okabe & Ito: safe for colour-blind readers, legible on light and dark
GROUPS = (BLUE, VERMILION, GREEN, "#cc79a7", AMBER, "#56b4e9", "#8b98a7")
HEIGHT = 280
CHART = {"displayModeBar": False}  # passed as `config` to st.plotly_chart: no floating buttons over the data


def density_histogram(edges: Sequence[float], counts: Sequence[int]) -> go.Figure:
    """Latents by log10 density; `edges` [n + 1] are log10 of the share of tokens, `counts` [n] are latents."""
    left, right = np.asarray(edges[:-1], dtype=float), np.asarray(edges[1:], dtype=float)
    figure = go.Figure(
        go.Bar(
            x=(left + right) / 2,
            y=list(counts),
            width=0.94 * (right - left),
            marker={"color": BLUE, "line": {"width": 0}},
            customdata=np.stack([10**left, 10**right], axis=1),
            hovertemplate="%{y} latents<br>density %{customdata[0]:.2~%} to %{customdata[1]:.2~%}<extra></extra>",
        )
    )
    ticks = np.arange(np.floor(edges[0]), np.ceil(edges[-1]) + 1)
    figure.update_xaxes(
        title="density: share of tokens it fires on", tickvals=ticks, ticktext=[power(t) for t in ticks]
    )
    figure.update_yaxes(title="latents")
    return laid_out(figure)


def rank_density(
    ranks: Sequence[int],
    densities: Sequence[float],
    law: Sequence[float] | None = None,
    budget: Sequence[float] | None = None,
) -> go.Figure:
    """Density of the latent of each rank (1 = fires most often), on log axes; `law` is a fit at the same ranks.

    `budget` is the share of tokens that training let the latent of each rank have, at the same ranks.
    """
    figure = go.Figure(
        go.Scatter(
            x=list(ranks),
            y=list(densities),
            mode="lines",
            name="measured",
            line={"color": BLUE, "width": 2},
            hovertemplate="rank %{x:,}<br>fires on %{y:.3~%} of tokens<extra></extra>",
        )
    )
    if law is not None:
        dashes = {"color": VERMILION, "width": 1.5, "dash": "dash"}
        figure.add_scatter(x=list(ranks), y=list(law), mode="lines", name="fitted law", line=dashes, hoverinfo="skip")
    if budget is not None:
        figure.add_scatter(
            x=list(ranks), y=list(budget), mode="lines", name="budget",
            line={"color": GREEN, "width": 1.5, "dash": "dot"},
            hovertemplate="rank %{x:,}<br>budget: %{y:.3~%} of tokens<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="rank of the latent by density", type="log", **_decades(1, max(ranks)))
    low, high = min([*densities, *(budget or ())]), max([*densities, *(budget or ())])
    figure.update_yaxes(
        title="density: share of tokens", type="log", **_decades(low, high),
        range=[np.log10(low) - 0.1, np.log10(high) + 0.25],
    )  # fmt: skip
    return laid_out(figure).update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12})


def active_per_token(counts: Sequence[int]) -> go.Figure:
    """Tokens by number of active latents; `counts` entry n is for exactly n."""
    figure = go.Figure(
        go.Bar(
            x=list(range(len(counts))),
            y=list(counts),
            marker={"color": BLUE, "line": {"width": 0}},
            hovertemplate="%{y:,} tokens have %{x} active latents<extra></extra>",
        )
    )
    figure.update_xaxes(title="active latents on a token")
    figure.update_yaxes(title="tokens")
    return laid_out(figure, height=220)


def training_curve(tokens: Sequence[float], values: Sequence[float | None], name: str, log: bool = False) -> go.Figure:
    """One measured quantity over training; x is tokens seen."""
    figure = go.Figure(
        go.Scatter(
            x=list(tokens),
            y=list(values),
            mode="lines",
            line={"color": BLUE, "width": 2},
            hovertemplate="%{x:.3s} tokens<br>" + name + " %{y:.4~g}<extra></extra>",
        )
    )
    figure.update_xaxes(title="training tokens", tickformat="~s", rangemode="tozero")
    positive = [value for value in values if value is not None and value > 0]
    if log and positive:
        figure.update_yaxes(type="log", **_decades(min(positive), max(positive)))
    else:
        figure.update_yaxes(rangemode="tozero", tickformat="~g")
    figure.update_yaxes(title=name)
    return laid_out(figure, height=220)


def activation_histogram(counts: Sequence[int], maximum: float) -> go.Figure:
    """Active tokens of one latent by activation value; equal bins over (0, `maximum`], counts on a log axis."""
    width = maximum / max(len(counts), 1)
    shown = [count if count > 0 else None for count in counts]
    figure = go.Figure(
        go.Bar(
            x=[(bin_ + 0.5) * width for bin_ in range(len(counts))],
            y=shown,
            width=width * 0.92,
            marker={"color": AMBER, "line": {"width": 0}},
            customdata=[[bin_ * width, (bin_ + 1) * width] for bin_ in range(len(counts))],
            hovertemplate="%{y:,} tokens<br>activation %{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
        )
    )
    figure.update_xaxes(title="activation", range=[0, maximum], tickformat="~g")
    top = max([count for count in counts if count > 0], default=1)
    figure.update_yaxes(title="tokens", type="log", **_decades(1, top), range=[-0.3, np.log10(top) + 0.15])
    return laid_out(figure, height=220)


@dataclass(frozen=True)
class Point:
    """A run in a trade-off plot: active latents per token against a cost; runs of one `group` share a colour."""

    x: float
    y: float
    name: str
    group: str


def trade_off(points: Sequence[Point], y_title: str) -> go.Figure:
    """Cost against active latents per token, and the front of those that no other beats on both."""
    figure = go.Figure()
    front = undominated(points)
    figure.add_scatter(
        x=[p.x for p in front], y=[p.y for p in front], mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": "#8b98a7", "width": 1, "dash": "dot"},
    )  # fmt: skip
    for number, group in enumerate(sorted({point.group for point in points})):
        members = [point for point in points if point.group == group]
        figure.add_scatter(
            x=[p.x for p in members], y=[p.y for p in members], mode="markers", name=group,
            marker={"size": 11, "color": GROUPS[number % len(GROUPS)]}, customdata=[[p.name] for p in members],
            hovertemplate="%{customdata[0]}<br>%{x:.3~g} active latents<br>%{y:.3~g}<extra></extra>",
        )  # fmt: skip
    most = max((point.x for point in points), default=1.0)
    figure.update_xaxes(title="active latents per token (L0)", range=[0, 1.06 * most])  # markers whole at the edge
    figure.update_yaxes(title=y_title, rangemode="tozero", tickformat="~g")
    laid_out(figure, height=340)
    return figure.update_layout(showlegend=True, legend={"orientation": "h", "y": 1.12}, clickmode="event+select")


def undominated(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats or equals on both axes (smaller is better), from left to right."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, p.y)):
        if not front or point.y < front[-1].y:
            front.append(point)
    return front


def power(exponent: float) -> str:
    """10 to a whole power as a tick label: a percentage where people read it easily, else a power of ten."""
    return {0: "100%", -1: "10%", -2: "1%", -3: "0.1%"}.get(int(exponent), f"10<sup>{int(exponent)}</sup>")


def _decades(low: float, high: float) -> dict[str, Any]:
    """Ticks of a log axis between two positive numbers: whole powers of ten, with steps between on a short axis."""
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    steps = (1, 2, 3, 4, 5, 6, 8) if high / low < 5 else (1, 2, 5) if high / low < 100 else (1,)
    ticks = [(step, exponent) for exponent in exponents for step in steps]
    return {
        "tickvals": [step * 10.0**exponent for step, exponent in ticks],
        "ticktext": [_tick(*tick) for tick in ticks],
    }


def _tick(step: int, exponent: int) -> str:
    if 0 <= exponent <= 5:
        return f"{step * 10**exponent:,}"
    if -3 <= exponent < 0:
        return f"{step * 10.0**exponent:g}"
    return f"10<sup>{exponent}</sup>" if step == 1 else f"{step}·10<sup>{exponent}</sup>"


def laid_out(figure: go.Figure, height: int = HEIGHT) -> go.Figure:
    """Size and margins of every figure of the app."""
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        showlegend=False,
        bargap=0,
        hoverlabel={"align": "left"},
        uirevision="keep",  # a live chart keeps the reader's zoom when new points arrive
    )
    return figure
