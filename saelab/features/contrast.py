"""Latents that fire on one text and not on another."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.features.prompt import Contrast, PromptReading

Strength = Literal["largest", "mean"]
"""How strongly a latent fires on a text: its largest activation there, or the mean over the kept tokens."""


class Ranking(NamedTuple):
    """The latents with the most contrast."""

    latents: list[Contrast]
    """`one` and `other` in units of the latent's largest activation in the index; the largest difference first."""
    unknown: int
    """Latents that fire on the texts and never did in the index, so have no unit; they are left out."""


def strengths(reading: PromptReading, by: Strength) -> Float[Tensor, "d_sae"]:
    """How strongly each latent fires on a text, in the dictionary's own units; 0 on a text without kept tokens."""
    if by == "largest":
        return reading.largest()
    total = torch.zeros(reading.codes.d_sae).index_add_(0, reading.codes.latents, reading.codes.values)
    return total / max(int(reading.kept.sum()), 1)


def by_contrast(
    on: Float[Tensor, "d_sae"], off: Float[Tensor, "d_sae"], largest: Float[Tensor, "d_sae"], n: int
) -> Ranking:
    """The `n` latents with the largest (on - off) / largest, of those where that is above 0; lower numbers win ties.

    Args:
        largest: each latent's largest activation in the index; 0 for those that never fired.
    """
    known = largest > 0
    unknown = int(((on > 0) | (off > 0))[~known].sum())
    unit = largest.where(known, torch.inf)
    one, other = on / unit, off / unit
    order = (one - other).sort(descending=True, stable=True).indices[:n]
    return Ranking([Contrast(int(i), float(one[i]), float(other[i])) for i in order if one[i] > other[i]], unknown)
