"""What steering does: spreads over latents beside random directions and differences of means, and labels aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from saelab.evaluation.figures.style import GREY, WIDE, colour, label, laid_out, legend_above, symbol
from saelab.evaluation.steering.report import Directions, Outcome, Spread, SteeringReport

_KINDS: Final[tuple[Directions, ...]] = ("latents", "mean difference", "random")
MEASURES: Final = {"kl": "nats", "largest": "logits", "agreement": "", "gain": "nats", "harm": "nats/token"}
"""Fields of `Outcome` that are spreads over directions, and their units."""


def quantiles(reports: Sequence[SteeringReport], measure: str, matched: str = "equal") -> go.Figure:
    """Boxes over directions, at every strength of every dictionary: 10, 25, 50, 75 and 90 %, and the mean.

    Args:
        measure: one of `MEASURES`.
        matched: "equal" (all directions have one length) or "own" (each in its own unit).
    """
    figure = go.Figure()
    for place, kind in enumerate(_KINDS):
        boxes = [(name, spread) for report in reports for name, spread in _boxes(report, kind, measure, matched)]
        if boxes:
            spreads = [spread for _, spread in boxes]
            figure.add_box(
                x=[name for name, _ in boxes], lowerfence=[s.p10 for s in spreads], q1=[s.p25 for s in spreads],
                median=[s.p50 for s in spreads], q3=[s.p75 for s in spreads], upperfence=[s.p90 for s in spreads],
                mean=[s.mean for s in spreads], name=kind, marker={"color": colour(place)}, line={"width": 1.5},
            )  # fmt: skip
    title = Outcome.model_fields[measure].title or measure
    unit = MEASURES[measure]
    figure.update_yaxes(title=f"{title} ({unit})" if unit else title, tickformat="~g")
    figure.update_xaxes(title="dictionary and strength")
    lengths = "one length" if matched == "equal" else "each in its own unit"
    return legend_above(laid_out(figure, f"{title} of directions, {lengths}")).update_layout(boxmode="group")


def targets(report: SteeringReport) -> go.Figure:
    """Labels steered towards: how much the label itself moves and how much the others do, by the way of steering."""
    figure = go.Figure()
    by_way: dict[str, list[tuple[str, float | None, float | None, str]]] = {}
    for target in report.targets or []:
        for steered in target.ways:
            by = "no latent" if steered.latent is None else f"latent {steered.latent}"
            by_way.setdefault(steered.way, []).append((label(target.label), steered.off, steered.on, by))
    for place, (way, points) in enumerate(by_way.items()):
        figure.add_scatter(
            x=[off for _, off, _, _ in points], y=[on for _, _, on, _ in points], mode="markers", name=way,
            marker={"color": colour(place), "symbol": symbol(place), "size": 8},
            customdata=[[name, by] for name, _, _, by in points],
            hovertemplate="<b>%{customdata[0]}</b> by %{customdata[1]}<br>itself %{y:+.3f}<br>others %{x:.3f}"
            "<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": GREY, "width": 1})
    figure.update_xaxes(title="off target: mean |change| of the other labels (probability)", tickformat="~g")
    figure.update_yaxes(title="on target: change of the label (probability)", tickformat="~g")
    return legend_above(laid_out(figure, f"Labels steered towards: {report.about.dictionary}"), WIDE)


def _boxes(report: SteeringReport, kind: Directions, measure: str, matched: str) -> list[tuple[str, Spread]]:
    found: list[tuple[str, Spread]] = []
    for outcome in sorted(report.outcomes, key=lambda outcome: outcome.strength or 0.0):
        spread = getattr(outcome, measure)
        wanted = (outcome.directions, outcome.matched, outcome.method) == (kind, matched, "direction")
        if wanted and spread is not None:
            found.append((f"{label(report.about.dictionary)}, {outcome.strength:g}×", spread))
    return found
