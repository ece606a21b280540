"""Activations from a known sparse dictionary: more features than dimensions, Zipf-distributed, in families.

Source: none; a toy of our own in the manner of sparse-coding benchmarks, with what METHODS says matters in language
models: a heavy tail of rare features, features inside others (which invite absorption), alternatives that exclude
each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from saelab.errors import UserError
from saelab.evaluation.truth.config import TruthConfig
from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes

MOST = 0.95  # firing frequency that no feature may exceed
TRAINING, SAMPLE, HELD_OUT = range(3)  # streams of random numbers that never meet


class Drawn(NamedTuple):
    """Activations and what made them."""

    x: Float[Tensor, "n d_in"]
    codes: SparseCodes
    """`[n, n_features]`: magnitude of every feature that fires on a token."""


@dataclass(frozen=True, eq=False)
class Truth:
    """`x = Σ_i a_i directions[i] + offset + noise`; a_i = 0 where feature i does not fire.

    Feature i is the (i+1)-th most frequent one and fires on a share `frequency[i] ∝ (i + 1 + q)^-s` of tokens; the
    shares sum to `active`. Features without a parent fire independently of each other. A child fires only where its
    parent does; the children of an exclusive family never together, those of another independently given the parent.
    A firing has magnitude `magnitude[i] · exp(σn − σ²/2)`, n standard normal: mean `magnitude[i]`, always positive.

    Trainers take it as `source.TruthPass`.

    Attributes:
        directions: unit vectors, uniform on the sphere (root mean square cosine 1/√d_in).
        frequency: float64, falling.  magnitude: mean over firings.  offset: added to every token.
        parent: number of a child's parent; a feature without one is its own.
        family: number of a child's exclusive family, counted from 0; -1 for all other features.
    """

    config: TruthConfig
    directions: Float[Tensor, "n_features d_in"]
    frequency: Float[Tensor, "n_features"]
    magnitude: Float[Tensor, "n_features"]
    offset: Float[Tensor, "d_in"]
    parent: Int[Tensor, "n_features"]
    family: Int[Tensor, "n_features"]

    @classmethod
    def make(cls, config: TruthConfig) -> Truth:
        """The truth that `config` describes.

        Raises:
            UserError: a feature would have to fire on almost every token, or children do not fit into their parents.
        """
        draw = np.random.default_rng(config.seed)
        frequency = frequencies(config)
        parent, family = _families(config, frequency, draw)
        directions = torch.from_numpy(draw.standard_normal((config.n_features, config.d_in))).float()
        offset = torch.from_numpy(draw.standard_normal(config.d_in)).float()
        spread = config.feature_spread
        magnitude = np.exp(spread * draw.standard_normal(config.n_features) - spread**2 / 2)
        return cls(
            config, normalize(directions, dim=1), frequency, torch.from_numpy(magnitude).float(),
            config.offset * normalize(offset, dim=0), parent, family,
        )  # fmt: skip

    @property
    def d_in(self) -> int:
        return self.config.d_in

    def held_out(self, tokens: int, batch_size: int = 2048) -> Iterator[Drawn]:
        """`tokens` tokens, rounded up to whole batches, that no training sees, with their true codes."""
        for number in range(-(-tokens // batch_size)):
            yield self.draw(batch_size, HELD_OUT, number)

    def draw(self, n: int, *stream: int) -> Drawn:
        """`n` tokens: a pure function of n, the stream's numbers and `config`."""
        seeds = np.random.SeedSequence([self.config.seed, *stream])
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        codes = self._firings(n, generator)
        spread = self.config.firing_spread
        wobble = torch.exp(spread * torch.randn(codes.nnz, generator=generator) - spread**2 / 2)
        codes = codes.with_values(self.magnitude[codes.latents] * wobble)
        noise = torch.randn(n, self.d_in, generator=generator) * (self.config.noise / self.d_in**0.5)
        return Drawn(choose().decode(codes, self.directions) + self.offset + noise, codes)

    def _firings(self, n: int, generator: torch.Generator) -> SparseCodes:
        """Feature i fires where its lot falls into `[low_i, high_i)` and its parent fires."""
        lot, low, high = self._lottery
        drawn = torch.rand(n, self.config.n_features, generator=generator)[:, lot]
        fires = (drawn >= low) & (drawn < high)
        fires &= fires[:, self.parent]
        return SparseCodes.from_mask(torch.ones(1).expand(fires.shape), fires)

    @cached_property
    def _lottery(self) -> tuple[Int[Tensor, "n_features"], Float[Tensor, "n_features"], Float[Tensor, "n_features"]]:
        """Whose lot each feature shares, and the part of [0, 1) in which it wins: exclusive siblings have one lot."""
        own = torch.arange(self.config.n_features)
        share = torch.where(self.parent == own, self.frequency, self.frequency / self.frequency[self.parent])
        lot, low = own.clone(), torch.zeros_like(share)
        for family in range(int(self.family.max()) + 1):
            siblings = (self.family == family).nonzero()[:, 0]
            lot[siblings] = siblings[0]
            low[siblings] = share[siblings].cumsum(0) - share[siblings]
        return lot, low.float(), (low + share).float()


def frequencies(config: TruthConfig) -> Float[Tensor, "n_features"]:
    """`(rank + q)^-s`, scaled to sum to `active`; float64.

    Raises:
        UserError: the most frequent feature would fire almost always.
    """
    rank = torch.arange(1, config.n_features + 1, dtype=torch.float64)
    weight = (rank + config.shift) ** -config.exponent
    frequency = config.active * weight / weight.sum()
    if float(frequency[0]) > MOST:
        raise UserError(
            f"the most frequent feature would fire on {float(frequency[0]):.0%} of tokens; "
            "lower `active` or `exponent`, or raise `shift`"
        )
    return frequency


def _families(
    config: TruthConfig, frequency: Float[Tensor, "n_features"], draw: np.random.Generator
) -> tuple[Int[Tensor, "n_features"], Int[Tensor, "n_features"]]:
    """Parents are the most frequent features; children are drawn among those rare enough to fit side by side."""
    parent = torch.arange(config.n_features)
    family = torch.full_like(parent, -1)
    free = np.arange(config.families, config.n_features)
    exclusive = round(config.exclusive * config.families)
    # Rarest parent first: it has the fewest candidates.
    for number, who in enumerate(reversed(range(config.families))):
        fitting = free[frequency[free].numpy() <= float(frequency[who]) / config.children]
        if len(fitting) < config.children:
            raise UserError(
                f"too few features are rare enough to be children of feature {who}; "
                "lower `families` or `children`, or raise `n_features`"
            )
        chosen = draw.choice(fitting, config.children, replace=False)
        free = np.setdiff1d(free, chosen)
        parent[chosen] = who
        # Spread evenly, so that both kinds of family are found at every frequency.
        if (number + 1) * exclusive // max(config.families, 1) > number * exclusive // max(config.families, 1):
            family[chosen] = int(family.max()) + 1
    return parent, family
