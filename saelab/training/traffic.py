"""How many bytes a rank receives in a training step, derived; docs/scaling.md explains each term."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from saelab.dictionaries.config import FeatureChoice, Gated, GradientAffinity, JumpRelu, MutualChoice, TokenChoice
from saelab.training.config import SaeConfig

AxisName = Literal["data", "latent", "world"]
NUMBER = 4
"""Bytes of an int32."""
LONG = 8
"""Bytes of an int64 or a float64."""
KEY_BINS = {4: (2048, 2048, 1024), 8: (2048,) * 5 + (512,)}
"""Counts that travel in each round of a mutual choice, by bytes of a score."""


def gathered(longest: int, size: int) -> int:
    """Bytes that a rank receives where `size` ranks gather parts, the longest of `longest` bytes."""
    return (size - 1) * longest


def summed(nbytes: int, size: int) -> int:
    """Bytes that a rank receives where `size` ranks add up a tensor of `nbytes` (a ring; the smallest of, too)."""
    return 2 * (size - 1) * nbytes // size


def share(total: int, size: int, index: int = 0) -> int:
    """How many of `total` things rank `index` of `size` has; the first ranks have most."""
    return (total + size - 1 - index) // size


class RowTraffic(NamedTuple):
    """Bytes that a rank receives so that the rows of both matrices move by the whole batch's gradient.

    Sparse: matches and rows of ∂L/∂x_hat of the other tokens. Sharded: sums of its part of the rows, then the rows
    that the others have moved.
    """

    sparse: int
    sharded: int

    @property
    def is_sparse(self) -> bool:
        """Whether the first is the less; where both are equal it is, because nothing more has to be exchanged."""
        return self.sparse <= self.sharded


def row_traffic(
    data: int,
    tokens: int,
    matches: int,
    latents: int,
    d_in: int,
    d_out: int,
    width: int = 4,
    values: int = 2,
    tables: int = 1,
) -> RowTraffic:
    """Both ways for one shard of the latents.

    Args:
        data: ranks that share the batch.
        tokens: of the whole batch.
        matches: of the data rank that has the most, within the shard.
        latents: of the shard.
        width: bytes of a number.
        values: numbers of each match: its activation, ∂L/∂z, and what a gate adds.
        tables: of ∂L/∂x_hat: one for each nested dictionary that adds latents of the shard.
    """
    own = share(tokens, data)
    of_matches = own * NUMBER + matches * (NUMBER + values * width)
    sparse = gathered(of_matches + tables * own * d_out * width, data)
    rows = share(latents, data) * (d_in + d_out) * width
    return RowTraffic(sparse, 2 * gathered(rows, data))


class Exchanged(NamedTuple):
    """One exchange of a step, as one rank sees it."""

    axis: AxisName
    purpose: str
    nbytes: int
    """Received."""


class Kept(NamedTuple):
    """What a step kept of one shard's matches, by data rank."""

    matches: Sequence[int]
    auxiliary: Sequence[int] | None = None
    """Of the auxiliary loss; nothing where no latent of any rank is starved, None where the loss is not taken."""
    attempts: int = 1
    """Rounds of histograms that a mutual choice took; 2 where a rank had offered too little."""
    tables: int = 0
    """How often the densities of all latents were brought together: for Zipf laws, deficits and budgets."""


@dataclass(frozen=True)
class Step:
    """One step of one rank.

    Args:
        data, latent: ranks along each axis; the indices are this rank's.
        tokens: of the whole batch.
        k: budget of latents per token at this step.
        k_aux, stride: of the auxiliary loss: latents per token, and every how many-th token from the `first` on.
        is_first_phase: whether feature choice still chooses as mutual choice does.
        sharded: whether sums of rows travel, not matches.
        width: bytes of a number.
    """

    sae: SaeConfig
    data: int
    latent: int
    tokens: int
    d_in: int
    d_out: int
    k: float
    data_index: int = 0
    latent_index: int = 0
    k_aux: int = 0
    stride: int = 1
    first: int = 0
    is_first_phase: bool = False
    sharded: bool = False
    width: int = 4

    def received(self, kept: Kept) -> dict[str, int]:
        """Bytes by purpose, as `Mesh.received` counts them; purposes of no bytes are left out."""
        found: Counter[str] = Counter()
        for one in self.exchanges(kept):
            found[one.purpose] += one.nbytes
        return dict(found)

    def exchanges(self, kept: Kept) -> list[Exchanged]:
        """One after another, roughly in the order of the step; those of nothing, or of one rank, are left out."""
        found = [*self._selection(kept), *self._gradients(kept), *self._numbers(kept)]
        if kept.auxiliary is not None:
            found += self._auxiliary(kept.auxiliary)
        return [one for one in found if one.nbytes]

    @property
    def own_tokens(self) -> int:
        return share(self.tokens, self.data, self.data_index)

    @property
    def own_latents(self) -> int:
        return share(self.sae.d_sae, self.latent, self.latent_index)

    def _gather(self, axis: AxisName, purpose: str, longest: int) -> Exchanged:
        return Exchanged(axis, purpose, gathered(longest, self._size(axis)))

    def _sum(self, axis: AxisName, purpose: str, nbytes: int) -> Exchanged:
        return Exchanged(axis, purpose, summed(nbytes, self._size(axis)))

    def _size(self, axis: AxisName) -> int:
        return {"data": self.data, "latent": self.latent, "world": self.data * self.latent}[axis]

    def _selection(self, kept: Kept) -> Iterator[Exchanged]:
        choice = self.sae.allocation
        if isinstance(choice, TokenChoice):
            yield self._gather("latent", "token choice", self.width * self.own_tokens * round(self.k))
        elif isinstance(choice, MutualChoice) or self.is_first_phase:
            for bins in kept.attempts * (*KEY_BINS[self.width], 1):
                yield self._sum("world", "mutual choice", LONG * bins)
        elif isinstance(choice, FeatureChoice):
            yield self._gather("data", "feature choice", self.width * sum(kept.matches))
        if isinstance(self.sae.affinity, GradientAffinity) and self.sae.affinity.normalise == "mean1":
            yield self._sum("world", "gradient affinity", 2 * LONG)
        for _ in range(len(self.sae.prefix_ends()) + isinstance(choice, Gated)):
            yield self._sum("latent", "reconstruction", self.own_tokens * self.d_out * self.width)

    def _gradients(self, kept: Kept) -> Iterator[Exchanged]:
        longest, rows, width = share(self.tokens, self.data), share(self.own_latents, self.data), self.width
        gate = self.sae.allocation
        for _ in range(2 if isinstance(gate, Gated) else int(isinstance(gate, JumpRelu))):
            yield self._sum("data", "vectors", self.own_latents * width)
        yield self._sum("world", "b_dec", self.d_out * width)
        if not self.sharded:
            yield from self._matches("matches", longest, kept.matches, 3 if isinstance(gate, Gated) else 2)
            for _ in range(self.rings):
                yield self._gather("data", "rows", longest * self.d_out * width)
            return
        for d in (self.d_in, self.d_out):
            yield self._gather("data", "rows", rows * d * width)  # sums of a part
            yield self._gather("data", "rows", rows * d * width)  # rows that have moved
        yield self._sum("data", "vectors", self.own_latents * width)
        yield self._sum("data", "statistics", self.own_latents * LONG)  # on how many tokens each fired
        yield self._sum("data", "statistics", self.own_latents * NUMBER)  # thresholds

    def _matches(self, purpose: str, tokens: int, matches: Sequence[int], values: int) -> Iterator[Exchanged]:
        """Their number in each token, their latents, and some values of each."""
        yield self._gather("data", purpose, tokens * NUMBER)
        yield self._gather("data", purpose, max(matches) * NUMBER)
        yield self._gather("data", purpose, max(matches) * values * self.width)

    @property
    def rings(self) -> int:
        """Nested dictionaries that add latents of this shard."""
        start = sum(share(self.sae.d_sae, self.latent, index) for index in range(self.latent_index))
        stop = start + self.own_latents
        return sum(max(low, start) < min(high, stop) for low, high in pairwise((0, *self.sae.prefix_ends())))

    def _numbers(self, kept: Kept) -> Iterator[Exchanged]:
        yield self._sum("world", "losses", 3 * LONG)
        penalty = getattr(self.sae.allocation, "penalty", None)
        if penalty is not None and penalty.coefficient is None:  # steered towards k
            yield self._sum("world", "price", LONG)
        yield self._sum("latent", "statistics", NUMBER)  # the batch's threshold
        yield self._sum("latent", "statistics", (self.own_tokens if self.sharded else self.tokens) * LONG)
        yield self._sum("latent", "statistics", 2 * LONG)
        if self.sharded:
            yield self._sum("data", "statistics", 2 * LONG)
        for _ in range(kept.tables):
            yield self._gather("latent", "densities", share(self.sae.d_sae, self.latent) * LONG)

    def _auxiliary(self, matches: Sequence[int]) -> Iterator[Exchanged]:
        yield self._sum("latent", "auxiliary", LONG)  # is there any starved latent?
        if not matches:
            return
        taken, width = self._auxiliary_tokens(), self.width
        own = taken[self.data_index]
        yield self._gather("latent", "auxiliary choice", width * own * self.k_aux)
        yield self._sum("latent", "reconstruction", own * self.d_out * width)
        yield self._sum("data", "auxiliary", self.d_out * width)
        yield self._sum("data", "auxiliary", width)
        yield self._sum("latent", "auxiliary", width)
        if not self.sharded:
            yield from self._matches("auxiliary matches", max(taken), matches, 2)
            yield self._gather("data", "auxiliary rows", max(taken) * self.d_out * width)

    def _auxiliary_tokens(self) -> list[int]:
        """Of each data rank's tokens, how many are among every `stride`-th of the batch."""
        stops = list(accumulate(share(self.tokens, self.data, index) for index in range(self.data)))
        before = [len(range(self.first, stop, self.stride)) for stop in (0, *stops)]
        return [upto - since for since, upto in pairwise(before)]


def moves_rows(sae: SaeConfig, data: int, latent: int, tokens: int, d_in: int, d_out: int) -> bool:
    """Whether sums of rows are fewer bytes than matches, for a batch at its budget: the same answer on all ranks."""
    rings = max(
        Step(sae, data, latent, tokens, d_in, d_out, sae.k, latent_index=index).rings for index in range(latent)
    )
    matches, latents = share(sae.k * tokens, data * latent), share(sae.d_sae, latent)
    return not row_traffic(data, tokens, matches, latents, d_in, d_out, tables=rings).is_sparse
