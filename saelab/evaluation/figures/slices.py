"""Where the damage is done: ΔCE by the position in the row, and by what is known of the predicted token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from saelab.evaluation.figures.style import GREY, WIDE, colour, error_bars, label, laid_out, legend_above, symbol
from saelab.evaluation.report import FidelityReport
from saelab.evaluation.slice_report import LabelSlice, PositionSlice

MOST: Final = 40  # labels shown: those with the largest ΔCE


def by_position(reports: Sequence[FidelityReport]) -> go.Figure:
    """ΔCE of predictions made at each position of the row, a line for each dictionary."""
    figure = go.Figure()
    for place, report in enumerate(reports):
        slices = [part for part in report.by_position or [] if part.delta_ce is not None]
        figure.add_scatter(
            x=[_span(part) for part in slices], y=[part.delta_ce for part in slices],
            error_y=error_bars(map(_measured, slices)), mode="lines+markers", name=label(report.about.dictionary),
            line={"color": colour(place)}, marker={"symbol": symbol(place), "size": 7},
            customdata=[[part.predictions] for part in slices],
            hovertemplate="positions %{x}: ΔCE %{y:.4f} nats/token<br>%{customdata[0]:,} predictions"
            "<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="positions in the row at which the prediction is made", type="category")
    figure.update_yaxes(title="ΔCE (nats/token)", rangemode="tozero", tickformat="~g")
    return legend_above(laid_out(figure, "ΔCE by position"), WIDE)


def by_label(reports: Sequence[FidelityReport]) -> go.Figure:
    """ΔCE of predictions of tokens of each label, worst of the first dictionary on top; a token may have several."""
    known = {part.label: part.delta_ce or 0.0 for report in reversed(reports) for part in report.by_label or []}
    shown = sorted(known, key=lambda name: known[name])[-MOST:]
    figure = go.Figure()
    for place, report in enumerate(reports):
        of = {part.label: part for part in report.by_label or []}
        slices = [of[name] for name in shown if name in of and of[name].delta_ce is not None]
        figure.add_scatter(
            y=[label(part.label) for part in slices], x=[part.delta_ce for part in slices],
            error_x=error_bars(map(_measured, slices)), mode="markers", name=label(report.about.dictionary),
            marker={"color": colour(place), "symbol": symbol(place), "size": 8},
            customdata=[[part.predictions] for part in slices],
            hovertemplate="%{y}: ΔCE %{x:.4f} nats/token<br>%{customdata[0]:,} predictions"
            "<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_xaxes(title="ΔCE (nats/token)", tickformat="~g")
    figure.update_yaxes(dtick=1, categoryorder="array", categoryarray=[label(name) for name in shown])
    figure.update_yaxes(range=[-0.7, len(shown) - 0.3])
    return legend_above(laid_out(figure, "ΔCE by the predicted token's label", 150 + 20 * len(shown)), WIDE)


def _measured(part: PositionSlice | LabelSlice) -> tuple[float | None, float | None, float | None]:
    interval = part.intervals.get("delta_ce")
    return (part.delta_ce, None, None) if interval is None else (part.delta_ce, interval.low, interval.high)


def _span(part: PositionSlice) -> str:
    return str(part.first) if part.first == part.last else f"{part.first} to {part.last}"
