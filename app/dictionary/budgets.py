"""How many tokens training let each latent have: the line that measured densities are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Budgets:
    """Share of tokens wanted for the latent of each rank, `at` the ranks asked for, and what it is, in words."""

    at: list[float]
    words: str


def budgets(config: dict[str, Any], metrics: Sequence[dict[str, Any]], ranks: Sequence[int]) -> Budgets | None:
    """The line for a dictionary's settings and its training's log; None where there is no budget to speak of.

    Feature choice: `m_i / B` of arXiv 2411.02124, by rank: uniform, or by the law given, or by the law fitted to the
    running densities when its first phase ended, which the log has. All others: k / F, were it shared out evenly.
    """
    k, d_sae = config.get("k"), config.get("d_sae")
    allocation = config.get("allocation", {})
    if not k or not d_sae or allocation.get("kind") == "group":
        return None
    if allocation.get("kind") != "feature":
        return Budgets([k / d_sae] * len(ranks), f"k / F = {k:,} / {d_sae:,}, the same for all latents")
    if allocation.get("budgets") == "uniform":
        return Budgets([k / d_sae] * len(ranks), f"the budget m_i / B of every latent, k / F = {k:,} / {d_sae:,}")
    law = _law(allocation, metrics)
    if law is None:
        return None
    s, q = law
    weights = (np.arange(1, d_sae + 1) + q) ** -s
    wanted = np.minimum(k * (np.asarray(ranks) + q) ** -s / weights.sum(), 1.0)
    return Budgets(wanted.tolist(), f"the budgets m_i / B of feature choice, by a law with s = {s:.2f}, q = {q:.1f}")


def _law(allocation: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """Exponent and shift of the budgets' law."""
    if allocation.get("exponent") is not None:
        return allocation["exponent"], allocation.get("shift", 0.0)
    if not metrics:
        return None
    settled = metrics[-1]["tokens"] * allocation.get("warmup_fraction", 0.0)
    law = next((line["zipf"] for line in metrics if line["tokens"] >= settled and line.get("zipf")), None)
    return (law["s"], law["q"]) if law else None
