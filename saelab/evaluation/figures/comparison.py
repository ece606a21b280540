"""Runs beside one another: their differences from the baseline with intervals, and how alike their latents are."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from saelab.evaluation.compare.report import DifferencePart, PairPart, StabilityPart
from saelab.evaluation.figures.style import COLOURS, GREY, error_bars, label, laid_out, symbol


def differences(pairs: Sequence[PairPart], metric: str, title: str, unit: str) -> go.Figure:
    """One number of every run minus the baseline's; what lies left of the line is less damage."""
    found = [(pair, part) for pair in pairs for part in pair.differences if part.metric == metric]
    sure = [part.is_sure for _, part in found]
    figure = go.Figure()
    figure.add_scatter(
        x=[part.value for _, part in found], y=[label(pair.run) for pair, _ in found], mode="markers",
        error_x=error_bars((part.value, part.low, part.high) for _, part in found) | {"color": GREY},
        marker={"size": 9, "color": [COLOURS[0] if yes else GREY for yes in sure],
                "symbol": [symbol(0) if yes else "circle-open" for yes in sure]},
        customdata=[[_p(part), _ratio(pair)] for pair, part in found],
        hovertemplate="<b>%{y}</b><br>%{x:+.4g} " + unit + "<br>%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    figure.update_xaxes(title="difference" + (f" ({unit})" if unit else ""), tickformat="~g")
    figure.update_yaxes(autorange="reversed", dtick=1)
    baseline = pairs[0].baseline if pairs else ""
    return laid_out(figure, f"{title} minus that of {baseline}", 150 + 30 * len(found))


def stability(parts: Sequence[StabilityPart]) -> go.Figure:
    """Mean cosine of one-to-one partners for every two dictionaries; 1 on the diagonal."""
    names = list(dict.fromkeys(name for part in parts for name in (part.a, part.b)))
    cosine = {frozenset((part.a, part.b)): part.found.matched_cosine for part in parts}
    values = [[1.0 if a == b else cosine.get(frozenset((a, b))) for b in names] for a in names]
    shown = [label(name) for name in names]
    cells = go.Heatmap(
        z=values, x=shown, y=shown, zmin=0, zmax=1, colorscale="Blues", xgap=1, ygap=1, texttemplate="%{z:.2f}",
        colorbar={"title": "cosine", "thickness": 10}, hovertemplate="%{y}<br>%{x}<br>%{z:.3f}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(cells)
    figure.update_yaxes(autorange="reversed", dtick=1)
    figure.update_xaxes(dtick=1)
    return laid_out(figure, "Decoder cosine of one-to-one partners", 220 + 34 * len(names))


def _p(part: DifferencePart) -> str:
    return "not tested" if part.p_holm is None else f"p = {part.p_holm:.3g} after Holm's correction"


def _ratio(pair: PairPart) -> str:
    return "" if pair.l0_ratio is None else f"L0 {pair.l0_ratio:.3g} times the baseline's"
