"""Allocation: under which constraint is the batch's budget of k·B matches spent?

k is whole for a finished warm-up and may be fractional on the way there. Where ranks select together, the scores are
one rank's, `tokens` counts the whole batch, and `latent` are the ranks among which its latents are divided.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.config import FeatureChoice
from saelab.dictionaries.zipf import fit_zipf
from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes
from saelab.ranks.axis import Axis

ALONE = Axis()


class TokenAllocation:
    """`sum_i S_ti = k` for every token. Source: arXiv 2406.04093."""

    def select(
        self,
        scores: Float[Tensor, "B F"],
        k: float,
        backend: Backend,
        tokens: int | None = None,
        latent: Axis = ALONE,
    ) -> SparseCodes:
        return backend.select_token(scores, round(k))


class MutualAllocation:
    """`sum_ti S_ti = k·B` and nothing else. Source: arXiv 2411.02124 (the same rule as arXiv 2412.06410)."""

    def select(
        self,
        scores: Float[Tensor, "B F"],
        k: float,
        backend: Backend,
        tokens: int | None = None,
        latent: Axis = ALONE,
    ) -> SparseCodes:
        return backend.select_mutual(scores, round(k * (len(scores) if tokens is None else tokens)))


class FeatureAllocation:
    """`sum_t S_ti = m_i` for every latent, `sum_i m_i = k·B`. Source: arXiv 2411.02124.

    The wanted `m_i` are rarely whole. What rounding withholds from a latent in one batch is carried to the next
    (error diffusion), so that over many batches latent i gets `m_i` on average, and each batch spends k·B exactly
    as long as no latent wants more tokens than the batch has.

    Attributes:
        shares: `[F]` float64, wanted share of the budget per latent, sums to 1.
        carry: `[F]` float64, matches owed to each latent from earlier batches.
    """

    def __init__(self, shares: Float[Tensor, "F"]) -> None:
        self.shares = shares.double() / shares.double().sum()
        self.carry = torch.zeros_like(self.shares)

    def select(
        self,
        scores: Float[Tensor, "B F"],
        k: float,
        backend: Backend,
        tokens: int | None = None,
        latent: Axis = ALONE,
    ) -> SparseCodes:
        B = len(scores) if tokens is None else tokens
        budgets = self.budgets(round(k * B), B)  # of all latents, on every rank
        own = latent.part(len(budgets))
        return backend.select_feature(scores, budgets[own.start : own.stop])

    def budgets(self, total: int, most: int) -> Int[Tensor, "F"]:
        """Whole budgets of the next batch: at most `most` each, `total` together; the remainders are carried."""
        wanted = capped(self.shares * total, most) + self.carry
        whole = wanted.floor().clamp(0, most)
        spare = round(min(total, most * len(wanted))) - int(whole.sum())
        remainder = torch.where(whole < most, wanted - whole, -torch.inf)
        if spare > 0:
            whole[torch.sort(remainder, descending=True, stable=True).indices[:spare]] += 1
        elif spare < 0:
            owed = torch.where(whole > 0, wanted - whole, torch.inf)
            whole[torch.sort(owed, stable=True).indices[:-spare]] -= 1
        self.carry = wanted - whole
        return whole.long()


class GroupAllocation:
    """One latent of each group for every token, the one that the token wants most (ties: the lower latent).

    Attributes:
        sizes: latents of each group; groups are consecutive.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)

    def select(self, scores: Float[Tensor, "B F"]) -> SparseCodes:
        best = [part.max(dim=1) for part in scores.split(self.sizes, dim=1)]
        first = torch.tensor((0, *self.sizes[:-1]), device=scores.device).cumsum(0)
        latents = torch.stack([found.indices for found in best], dim=1) + first
        values = torch.stack([found.values for found in best], dim=1)
        offsets = torch.arange(len(scores) + 1, device=scores.device) * len(best)
        return SparseCodes(values.reshape(-1), latents.reshape(-1), offsets, scores.shape[1], (len(scores),))


def capped(wanted: Float[Tensor, "F"], most: int) -> Float[Tensor, "F"]:
    """Cap every budget at `most` and hand the surplus to the others in proportion, keeping the sum where it fits."""
    total = float(wanted.sum())
    if total >= most * len(wanted):
        return torch.full_like(wanted, float(most))
    full = torch.zeros_like(wanted, dtype=torch.bool)
    result = wanted
    while bool((over := (result > most) & ~full).any()):
        full |= over
        free = total - most * int(full.sum())
        result = torch.where(full, float(most), wanted * (free / wanted[~full].sum()))
    return result


def uniform_shares(d_sae: int) -> Float[Tensor, "F"]:
    """The same budget for every latent."""
    return torch.full((d_sae,), 1 / d_sae, dtype=torch.float64)


def zipf_shares(density: Float[Tensor, "F"], exponent: float, shift: float) -> Float[Tensor, "F"]:
    """Shares `(r_i + q)^-s / Σ`, r_i = rank of latent i by running density (1 = densest; ties by lower latent).

    Source: the Zipf constraint is the paper's (arXiv 2411.02124, reviews); ranking by running density is our reading.
    """
    order = torch.sort(density, descending=True, stable=True).indices
    weights = (torch.arange(1, len(density) + 1, dtype=torch.float64) + shift) ** -exponent
    shares = torch.empty_like(weights)
    shares[order.cpu()] = weights / weights.sum()
    return shares


def budget_shares(choice: FeatureChoice, density: Float[Tensor, "F"]) -> Float[Tensor, "F"]:
    """Shares of the budget: uniform, or by a Zipf law that is given or fitted to the running `density`."""
    if choice.budgets == "uniform":
        return uniform_shares(len(density))
    if choice.exponent is not None:
        return zipf_shares(density, choice.exponent, choice.shift)
    law = fit_zipf(density)
    return zipf_shares(density, law.s, law.q)
