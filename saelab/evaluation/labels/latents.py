"""The one latent that tells a label best."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes

QUARTERS = 4


class BestLatents(NamedTuple):
    """For each label a latent, and above which activation it counts as detecting the label."""

    latent: Int[Tensor, "labels"]
    threshold: Float[Tensor, "labels"]


def best_latents(codes: SparseCodes, labels: Bool[Tensor, "tokens labels"]) -> BestLatents:
    """The latent, and of 0, ¼, ½ and ¾ of its largest activation the threshold, with the largest F1.

    F1 = 2 TP / (detected + positive); the lower latent, then the lower threshold wins a tie.
    """
    codes = codes.positive()
    backend = choose(device=codes.values.device)
    largest = codes.values.new_zeros(codes.d_sae).scatter_reduce_(0, codes.latents, codes.values, "amax")
    share = codes.values / largest[codes.latents]
    quarter = (share * QUARTERS).ceil().long().clamp(1, QUARTERS) - 1  # (0, ¼] is 0: above no threshold but 0
    # A latent's quarters are told apart as if they were latents, so that the counts are one row-sparse sum.
    finer = SparseCodes(
        codes.values, codes.latents * QUARTERS + quarter, codes.offsets, codes.d_sae * QUARTERS, codes.shape
    )
    ones = torch.ones_like(codes.values)
    hits = backend.row_gradients(finer, ones, labels.float()).unflatten(0, (-1, QUARTERS))  # [F, quarter, label]
    active = backend.latent_sums(finer, ones).unflatten(0, (-1, QUARTERS))
    above, on = _from_the_top(hits), _from_the_top(active)
    f1 = 2 * above / (on[..., None] + labels.sum(0))
    best = f1.flatten(0, 1).argmax(0)
    latent = best // QUARTERS
    return BestLatents(latent, largest[latent] * (best % QUARTERS) / QUARTERS)


def _from_the_top(counts: Float[Tensor, "F quarter *label"]) -> Float[Tensor, "F quarter *label"]:
    """Matches in this quarter or a higher one."""
    return counts.flip(1).cumsum(1).flip(1)
