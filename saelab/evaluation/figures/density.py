"""How firing is shared out: latents by density, and density by rank beside the law fitted to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import plotly.graph_objects as go

from saelab.evaluation.figures.style import colour, label, laid_out, legend_above
from saelab.evaluation.report import SparsityReport, ZipfLaw

_POINTS: Final = 60  # of the law's curve


def density_histogram(reports: Sequence[SparsityReport]) -> go.Figure:
    """Live latents by the share of tokens they fire on, a step line for each dictionary; the dead are in the legend."""
    figure = go.Figure()
    for place, report in enumerate(reports):
        edges, counts = report.metrics.density_edges, report.metrics.density_histogram
        figure.add_scatter(
            x=[10.0**edge for edge in edges], y=[*counts, 0], mode="lines",
            line={"shape": "hv", "color": colour(place), "width": 2},
            name=f"{label(report.about.dictionary)} ({report.metrics.dead:,} dead)",
            hovertemplate="density from %{x:.2~e}: %{y:,} latents<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_xaxes(
        title="density: share of tokens that the latent fires on", type="log", dtick=1, exponentformat="power"
    )
    figure.update_yaxes(title="live latents", rangemode="tozero")
    return legend_above(laid_out(figure, "Latents by density"))


def rank_density(reports: Sequence[SparsityReport]) -> go.Figure:
    """Density against rank (1 = fires most often), with the Zipf–Mandelbrot law as a dashed line.

    A report holds the histogram, not every density: the points are its bin edges, at which the rank is exact.
    """
    figure = go.Figure()
    for place, report in enumerate(reports):
        ranks, densities = _edges(report)
        figure.add_scatter(
            x=ranks, y=densities, mode="markers", marker={"color": colour(place), "size": 6},
            name=label(report.about.dictionary), legendgroup=str(place),
            hovertemplate="%{x:,} latents fire on %{y:.3~%} of tokens or more<extra>%{fullData.name}</extra>",
        )  # fmt: skip
        law = report.metrics.zipf
        if law is not None and ranks:
            at = [ranks[-1] ** (step / (_POINTS - 1)) for step in range(_POINTS)]
            figure.add_scatter(
                x=at, y=[_density(law, rank) for rank in at], mode="lines", hoverinfo="skip", showlegend=False,
                line={"color": colour(place), "dash": "dash", "width": 1.2}, legendgroup=str(place),
            )  # fmt: skip
    figure.update_xaxes(title="rank of the latent by density", type="log", dtick=1)
    figure.update_yaxes(title="density: share of tokens", type="log", dtick=1, exponentformat="power")
    return legend_above(laid_out(figure, "Density by rank; dashed: the fitted Zipf–Mandelbrot law"))


def _edges(report: SparsityReport) -> tuple[list[int], list[float]]:
    """Rank of the last latent at or above each lower edge of the histogram, from the densest bin down."""
    edges, counts = report.metrics.density_edges[:-1], report.metrics.density_histogram
    ranks = list(accumulate(reversed(counts)))
    known = [
        (rank, 10.0**edge)
        for rank, edge, count in zip(ranks, reversed(edges), reversed(counts), strict=True)
        if rank > 0 and count > 0
    ]
    return [rank for rank, _ in known], [density for _, density in known]


def _density(law: ZipfLaw, rank: float) -> float:
    return math.exp((law.intercept or 0.0) - (law.s or 0.0) * math.log(rank + (law.q or 0.0)))
