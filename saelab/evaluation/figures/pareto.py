"""What sparsity costs: active latents per token against the damage, a line for each group of dictionaries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from saelab.evaluation.figures.style import colour, error_bars, label, laid_out, legend_above, symbol
from saelab.evaluation.report import FidelityMetrics, FidelityReport


@dataclass(frozen=True)
class Measured:
    """A number with its interval; an end that is None is undefined."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """One dictionary, or the mean of several: what it is called, and the group whose line it lies on."""

    name: str
    group: str
    l0: Measured
    cost: Measured


def fidelity(reports: Sequence[FidelityReport], number: str) -> go.Figure:
    """L0 against one number of the fidelity suite ("delta_ce", "kl", "fvu"), by architecture.

    A dictionary for which one of the two is undefined is left out.
    """
    points = [point for report in reports for point in _point(report, number)]
    title, unit = FidelityMetrics.model_fields[number].title or number, _unit(number)
    return trade_off(points, title, unit)


def trade_off(points: Sequence[Point], title: str, unit: str) -> go.Figure:
    """Points with error bars both ways; those of a group are joined from left to right, x logarithmic."""
    figure = go.Figure()
    for place, group in enumerate(dict.fromkeys(point.group for point in points)):
        of_group = sorted((point for point in points if point.group == group), key=lambda point: point.l0.value)
        figure.add_scatter(
            x=[point.l0.value for point in of_group], y=[point.cost.value for point in of_group],
            error_x=_bars(point.l0 for point in of_group), error_y=_bars(point.cost for point in of_group),
            mode="lines+markers", name=label(group), line={"color": colour(place), "width": 1.5},
            marker={"size": 8, "symbol": symbol(place)},
            customdata=[[label(point.name), _brackets(point.cost)] for point in of_group],
            hovertemplate="<b>%{customdata[0]}</b><br>L0 %{x:.4~g}<br>" + label(title)
            + " %{y:.4~g} %{customdata[1]} " + unit + "<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_xaxes(title="L0: active latents per token", type="log", **_ticks([p.l0.value for p in points]))
    figure.update_yaxes(title=f"{title} ({unit})" if unit else title, rangemode="tozero", tickformat="~g")
    return legend_above(laid_out(figure, f"{title} against L0"))


def _point(report: FidelityReport, number: str) -> Iterable[Point]:
    l0, cost = (measured(report, name) for name in ("l0", number))
    if l0 is not None and l0.value > 0 and cost is not None:
        yield Point(report.about.dictionary, report.about.architecture, l0, cost)


def measured(report: FidelityReport, name: str) -> Measured | None:
    """One number of a report with its interval; None where it is undefined."""
    value, interval = getattr(report.metrics, name), report.intervals.of.get(name)
    if value is None:
        return None
    return Measured(value) if interval is None else Measured(value, interval.low, interval.high)


def _unit(name: str) -> str:
    extra = FidelityMetrics.model_fields[name].json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


def _bars(points: Iterable[Measured]) -> dict:
    return error_bars((point.value, point.low, point.high) for point in points)


def _brackets(point: Measured) -> str:
    return "" if point.low is None or point.high is None else f"[{point.low:.4g}, {point.high:.4g}]"


def _ticks(values: Sequence[float]) -> dict:
    """Powers of two, which budgets mostly are: plotly's own ticks leave a short logarithmic axis without a number."""
    if not values:
        return {}
    ticks = [
        2.0**exponent for exponent in range(math.floor(math.log2(min(values))), math.ceil(math.log2(max(values))) + 1)
    ]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
