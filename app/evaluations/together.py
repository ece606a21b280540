"""Dictionaries at several sites of one model, substituted in the same pass: the whole set beside each by itself."""

from __future__ import annotations

from collections.abc import Iterable

import plotly.graph_objects as go
import streamlit as st

from app import reading
from app.evaluations import parts
from app.notation import plain
from app.workspace import Run
from saelab.errors import UserError
from saelab.evaluation.figures.style import COLOURS, error_bars, label, laid_out
from saelab.evaluation.page import Figure, Heading
from saelab.evaluation.together.report import TogetherReport
from saelab.evaluation.together.table import side_by_side


def show(runs: Iterable[Run]) -> None:
    """The report that each of the runs has, the one it was given first in."""
    for run in runs:
        try:
            report = reading.together(run)
        except (UserError, OSError) as problem:
            st.caption(f":red[{plain(run.name)} can't be read:] {plain(str(problem))}")
            continue
        if report is not None:
            names = [each.dictionary for each in report.alone]
            about = (
                "Bars: 95 % bootstrap intervals over documents. Their sum is what errors that ignore each other cost."
            )
            content = [Heading(" + ".join(names), 3), side_by_side(report), Figure(damage(report), about)]
            parts.show(content, f"together {run.name}")


def damage(report: TogetherReport) -> go.Figure:
    """ΔCE of each dictionary alone, their sum, and of all together."""
    whole, of = report.metrics, report.intervals.of
    rows = [
        *((f"{one.dictionary} alone", one.metrics.delta_ce, one.intervals.of.get("delta_ce")) for one in report.alone),
        ("sum of these", whole.delta_ce_sum, of.get("delta_ce_sum")),
        ("together", whole.delta_ce, of.get("delta_ce")),
    ]
    known = [(name, value, interval) for name, value, interval in rows if value is not None]
    ends = [(value, i.low if i else None, i.high if i else None) for _, value, i in known]
    figure = go.Figure(
        go.Scatter(
            x=[value for _, value, _ in known], y=[label(name) for name, _, _ in known], mode="markers",
            marker={"size": 9, "color": COLOURS[0]}, error_x=error_bars(ends),
            hovertemplate="%{y}<br>ΔCE %{x:.4~g} nats/token<extra></extra>",
        ),
        {
            "xaxis": {"title": {"text": "ΔCE (nats/token)"}, "rangemode": "tozero", "tickformat": "~g"},
            "yaxis": {"autorange": "reversed"}, "showlegend": False,
        },
    )  # fmt: skip
    return laid_out(figure, "Damage alone and together", 150 + 40 * len(known))
