"""The gradient of a weight matrix, left as sums over matches until its rows are asked for.

Whole, the gradients of both matrices would be as large as the weights: written to memory, read back once, and mapped
anew at every step. Rows that are asked for where they are needed stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes


class Part(Protocol):
    """One summand of the gradient; it may concern some latents only."""

    def add_to(self, sums: Float[Tensor, "n d"], latents: range) -> None:
        """Add the rows of `latents`."""
        ...


class MatchSums(NamedTuple):
    """`Σ coefficient · input` over the matches of consecutive latents."""

    codes: SparseCodes
    coefficients: Float[Tensor, "nnz"]
    inputs: Float[Tensor, "B d"]
    backend: Backend
    first: int = 0
    """Which latent the codes' own latent 0 is."""

    def rows(self, latents: range) -> Float[Tensor, "n d"]:
        """Of latents that are all among the codes' own."""
        own = range(latents.start - self.first, latents.stop - self.first)
        return self.backend.row_gradients(self.codes, self.coefficients, self.inputs, own)

    def add_to(self, sums: Float[Tensor, "n d"], latents: range) -> None:
        low, high = max(latents.start, self.first), min(latents.stop, self.first + self.codes.d_sae)
        if low < high:
            sums[low - latents.start : high - latents.start] += self.rows(range(low, high))

    def covers(self, latents: range) -> bool:
        """Whether all of `latents` are among the codes' own."""
        return self.first <= latents.start and latents.stop <= self.first + self.codes.d_sae


class SomeRows(NamedTuple):
    """Rows that are there already."""

    latents: Int[Tensor, "m"]
    """Ascending."""
    values: Float[Tensor, "m d"]

    def add_to(self, sums: Float[Tensor, "n d"], latents: range) -> None:
        ends = torch.tensor([latents.start, latents.stop], device=self.latents.device)
        low, high = torch.searchsorted(self.latents, ends).tolist()
        sums.index_add_(0, self.latents[low:high] - latents.start, self.values[low:high])


@dataclass
class RowGradient:
    """∂L of `W_enc` or `W_dec`: the sum of its parts."""

    weight: Float[Tensor, "F d"]
    parts: list[Part] = field(default_factory=list)

    def rows(self, latents: range) -> Float[Tensor, "n d"]:
        """The gradient's rows for consecutive latents, in memory of their own."""
        parts = self.parts
        if parts and isinstance(parts[0], MatchSums) and parts[0].covers(latents):
            sums, parts = parts[0].rows(latents), parts[1:]
        else:
            sums = torch.zeros_like(self.weight[latents.start : latents.stop])
        for part in parts:
            part.add_to(sums, latents)
        return sums

    def whole(self) -> Float[Tensor, "F d"]:
        """All of them."""
        return self.rows(range(len(self.weight)))
