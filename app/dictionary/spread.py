"""How firing is spread: over latents (densities, the law their ranks follow) and over tokens (active latents each)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app import figures, links, reading
from app.dictionary.budgets import Budgets, budgets
from app.dictionary.latent_filter import underused
from app.dictionary.latent_table import WHICH
from app.notation import percent
from app.workspace import Run
from saelab.errors import UserError
from saelab.evaluation.report import SparsityReport
from saelab.features.index import FeatureIndex

BINS_PER_DECADE = 5
CURVE_POINTS = 300  # of the rank–density curve, evenly spread over the log of the rank


@dataclass(frozen=True)
class Spread:
    """Densities of all latents, boiled down to what two figures need."""

    edges: list[float]  # log10 density
    counts: list[int]
    ranks: list[int]
    densities: list[float]
    n_live: int
    n_dead: int
    median: float | None


def spread(run: Run, index: FeatureIndex) -> None:
    """The section of the overview."""
    numbers = _spread(index, reading.index_stamp(run))
    report = reading.sparsity_if_readable(run)
    st.subheader("How firing is spread")
    if not numbers.n_live:
        st.caption(f"No latent fired on the {index.n_tokens:,} tokens of the index.")
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Latents by density**")
        st.plotly_chart(figures.density_histogram(numbers.edges, numbers.counts), config=figures.CHART, key="densities")
        st.caption(
            f"{numbers.n_live:,} latents fired on the {index.n_tokens:,} tokens of the index, {numbers.n_dead:,} not. "
            f"The median one fires on {percent(numbers.median)} of tokens."
        )
    with right:
        st.markdown("**Density by rank**")
        law, line = _law(report, numbers.ranks), _budgets(run, numbers.ranks)
        figure = figures.rank_density(numbers.ranks, numbers.densities, law, line.at if line else None)
        st.plotly_chart(figure, config=figures.CHART, key="ranks")
        st.caption(_law_in_words(report) + (f" Dotted: {line.words}." if line else ""))
    st.html(_idle(run, index, numbers, report))
    if report is not None:
        _active_per_token(report)


def _budgets(run: Run, ranks: list[int]) -> Budgets | None:
    try:
        lines = reading.metrics(run)
    except (UserError, OSError):  # an interrupted log; the law is known without it, or there is no line
        lines = []
    return budgets(reading.dictionary_config(run), lines, ranks)


def _idle(run: Run, index: FeatureIndex, numbers: Spread, report: SparsityReport | None) -> str:
    """Latents that hardly work, each kind with a link to its latents in the table."""

    def linked(count: int, kind: str) -> str:
        said = f"{count:,} {kind}"
        return links.anchor(said, links.OVERVIEW, **{"run": run.name, WHICH: kind}) if count else said

    parts = [f"{linked(numbers.n_dead, 'dead')} (never fired here)"]
    law = report.metrics.zipf if report is not None else None
    if law is not None:
        count = int(underused(index.latents()["density"].to_numpy(), law).sum())
        parts.append(f"{linked(count, 'underused')} (fire less than half as often as the law expects of their rank)")
    return f'<p class="sl-said sl-faint">Hardly at work: {"; ".join(parts)}.</p>'


def _active_per_token(report: SparsityReport) -> None:
    counts = report.metrics.l0_histogram
    if sum(count > 0 for count in counts) < 2:
        return  # every token has the same number: a tile says it already
    st.markdown("**Active latents per token**")
    st.plotly_chart(figures.active_per_token(counts), config=figures.CHART, key="active_per_token")
    metrics = report.metrics
    st.caption(
        f"90% of tokens have {metrics.l0_p5} to {metrics.l0_p95} active latents; the median is {metrics.l0_p50}."
    )


def summarise(density: NDArray[np.float64]) -> Spread:
    """Histogram and rank curve of `density` [d_sae]."""
    live = np.sort(density[density > 0])[::-1]
    if not len(live):
        return Spread([], [], [], [], 0, len(density), None)
    exponents = np.log10(live)
    low, high = np.floor(exponents.min()), max(np.ceil(exponents.max()), np.floor(exponents.min()) + 1)
    counts, edges = np.histogram(exponents, round((high - low) * BINS_PER_DECADE), (low, high))
    at = np.unique(np.geomspace(1, len(live), CURVE_POINTS).round().astype(int))
    return Spread(
        edges.tolist(), counts.tolist(), at.tolist(), live[at - 1].tolist(),
        len(live), len(density) - len(live), float(np.median(live)),
    )  # fmt: skip


@st.cache_resource(max_entries=64, show_spinner=False)
def _spread(_index: FeatureIndex, stamp: str) -> Spread:
    return summarise(_index.latents()["density"].to_numpy())


def _law(report: SparsityReport | None, ranks: list[int]) -> list[float] | None:
    """The fitted Zipf–Mandelbrot law at `ranks`: log density = intercept - s · log(rank + q)."""
    law = report.metrics.zipf if report is not None else None
    if law is None or law.s is None or law.q is None or law.intercept is None:
        return None
    return np.exp(law.intercept - law.s * np.log(np.asarray(ranks) + law.q)).tolist()


def _law_in_words(report: SparsityReport | None) -> str:
    law = report.metrics.zipf if report is not None else None
    if law is None or law.s is None or law.q is None:
        return "Rank 1 is the latent that fires most often."
    fit = f", R² {law.r_squared:.2f}" if law.r_squared is not None else ""
    return (
        "Dashed: the Zipf–Mandelbrot law fitted in the evaluation, "
        f"density ∝ (rank + q) to the power −s, s = {law.s:.2f}{_plus_minus(law.s_error, 2)}, "
        f"q = {law.q:.1f}{_plus_minus(law.q_error, 1)}{fit}."
    )


def _plus_minus(error: float | None, digits: int) -> str:
    return "" if error is None else f" ± {error:.{digits}f}"
