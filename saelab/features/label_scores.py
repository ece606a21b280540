"""How well a latent tells which tokens carry a label: its best F1 over a few thresholds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

N_LABELS = 5  # best labels kept per latent


class LabelScores(NamedTuple):
    """Flat arrays, sorted by latent and rank."""

    latent: NDArray
    rank: NDArray
    label: NDArray  # index of the label
    f1: NDArray
    precision: NDArray
    recall: NDArray
    quarter: NDArray  # the latent counts as "on" above this many quarters of its largest activation


def label_scores(
    hits: Int64[np.ndarray, "n quarters labels"],
    active: Int64[np.ndarray, "n quarters"],
    totals: Int64[np.ndarray, "labels"],
    first: int,
) -> LabelScores:
    """Score "on = activation above a threshold" as a detector of each label, at 0, ¼, ½ and ¾ of the maximum.

    F1 = 2 TP / (on + labelled). Labels that a latent never meets are left out.

    Args:
        hits: tokens that carry the label, by the quarter of (0, max] that the latent's activation is in.
        active: active tokens by quarter.
        totals: kept tokens that carry each label.
        first: number of the first of these n latents.
    """
    above = hits[:, ::-1].cumsum(axis=1)[:, ::-1].astype(np.float64)  # [n, threshold, label]
    on = active[:, ::-1].cumsum(axis=1)[:, ::-1].astype(np.float64)[:, :, None]
    f1 = 2 * above / np.maximum(on + totals, 1)
    quarter = f1.argmax(axis=1)  # [n, label]; the lowest threshold wins a tie
    best = np.take_along_axis(f1, quarter[:, None], axis=1)[:, 0]
    label = np.argsort(-best, axis=1, kind="stable")[:, :N_LABELS]
    score = np.take_along_axis(best, label, axis=1)
    row, rank = np.nonzero(score > 0)
    chosen = label[row, rank]
    threshold = quarter[row, chosen]
    true_positives = above[row, threshold, chosen]
    return LabelScores(
        row + first, rank, chosen, score[row, rank],
        true_positives / on[row, threshold, 0], true_positives / totals[chosen], threshold,
    )  # fmt: skip
