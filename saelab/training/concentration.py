"""How widely matches are spread over latents and tokens: the early sign of a collapse."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.codes import SparseCodes
from saelab.ranks.axis import Axis
from saelab.training.exchange import ALONE, Exchange
from saelab.training.statistics import STATISTICS

FEW_LATENTS = 2.0  # budgets per token: healthy batches spread over many times as many latents
FEW_TOKENS = 0.125  # of the batch
SMALL_DICTIONARY = 0.25  # of all latents: a dictionary of 4·k latents can't be spread more widely than that


class Concentration(NamedTuple):
    """Effective numbers `(Σ c)² / Σ c²` of the counts c of firing matches, left on the device.

    n latents that fire equally often count as n; one that takes nearly all matches counts as 1.
    """

    active: Float[Tensor, ""]
    """Firing matches."""
    latents: Float[Tensor, ""]
    """Effective number of latents that share them."""
    tokens: Float[Tensor, ""]
    """Effective number of tokens that share them."""

    @classmethod
    def of(cls, codes: SparseCodes, fired: Int[Tensor, "F"], exchange: Exchange = ALONE) -> Concentration:
        """Of one batch's matches; `fired` says how many tokens each latent fired on.

        Args:
            codes: of several ranks, those that this one sees.
        """
        fires = (codes.values > 0).double()
        ends = fires.new_zeros(len(fires) + 1)
        ends[1:] = fires.cumsum(0)
        per_token = exchange.mesh.latent.sum(ends[codes.offsets].diff(), STATISTICS)
        latents, tokens = _sums(fired.double(), exchange.mesh.latent), _sums(per_token, exchange.summed)
        return cls(latents[0], _effective(*latents), _effective(*tokens))


def effective(counts: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """`(Σ c)² / Σ c²`, 0 when all counts are 0."""
    return _effective(*_sums(counts, ALONE.summed))


def _sums(counts: Float[Tensor, "n"], axis: Axis) -> list[Float[Tensor, ""]]:
    """Σ c and Σ c² over the ranks."""
    return list(axis.sum(torch.stack([counts.sum(), counts.square().sum()]), STATISTICS).unbind())


def _effective(total: Float[Tensor, ""], squares: Float[Tensor, ""]) -> Float[Tensor, ""]:
    return total.square() / squares.clamp(min=1.0)


def collapse(latents: float, tokens: float, k: float, d_sae: int, batch: int) -> str | None:
    """A sentence when nearly all matches go to few latents or few tokens, else None.

    Args:
        latents, tokens: effective numbers, averaged over the batches of a window.
    """
    if latents < min(FEW_LATENTS * k, SMALL_DICTIONARY * d_sae):
        return (
            f"the matches concentrate on about {latents:.0f} of {d_sae} latents, hardly more than k = {k:g}: "
            "the dictionary is collapsing; lower optimizer.lr, or give sae.k_warmup a larger start"
        )
    if tokens < FEW_TOKENS * batch:
        return (
            f"about {tokens:.0f} of {batch} tokens of a batch take nearly all matches: look for tokens of huge norm "
            "(policy.exclude_first, policy.exclude_special), or choose sae.allocation.kind token"
        )
    return None
