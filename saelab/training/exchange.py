"""How ranks that hold the same latents bring together what each knows of its own tokens.

Either the matches travel, and from then on every rank knows those of the whole batch (sparse); or the sums over them
do, and every rank moves its part of the rows (sharded). The step is written once for both: it gathers over one axis and
sums over another, of which one always has a single rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import pad

from saelab.kernels.codes import SparseCodes
from saelab.ranks.axis import Axis
from saelab.ranks.mesh import Mesh

MATCHES, ROWS = "matches", "rows"


class Tokens(NamedTuple):
    """Which tokens of one global batch each rank of `mesh.data` has."""

    parts: tuple[range, ...]
    """Numbers in the whole batch, by rank; one behind the other."""
    index: int = 0
    """This rank's."""

    @classmethod
    def of(cls, total: int, data: Axis) -> Tokens:
        """A batch of so many."""
        return cls(tuple(data.parts(total)), data.index)

    @property
    def total(self) -> int:
        """Tokens of the whole batch."""
        return self.parts[-1].stop

    @property
    def own(self) -> slice:
        """This rank's."""
        return _slice(self.parts[self.index])

    @property
    def counts(self) -> list[int]:
        """How many each rank has."""
        return [len(part) for part in self.parts]

    def every(self, stride: int, first: int) -> Tokens:
        """Every `stride`-th of the whole batch from the `first` on, as a batch of their own; first < stride."""

        def before(number: int) -> int:
            return len(range(first, number, stride))

        return Tokens(tuple(range(before(part.start), before(part.stop)) for part in self.parts), self.index)

    def own_every(self, stride: int, first: int) -> slice:
        """Where those of them that are this rank's are among its own."""
        return slice((first - self.parts[self.index].start) % stride, None, stride)


class Exchange:
    """What is gathered and what is summed over the ranks of `mesh.data`; one process gathers and sums nothing.

    Attributes:
        gathered: the ranks whose matches this one gets to see.
        summed: the ranks that have sums over other matches of the same latents.
    """

    def __init__(self, mesh: Mesh | None = None, sharded: bool = False) -> None:
        self.mesh = mesh = Mesh() if mesh is None else mesh
        self.gathered, self.summed = (Axis(), mesh.data) if sharded else (mesh.data, Axis())

    def matches(
        self, codes: SparseCodes, of_matches: Sequence[Float[Tensor, "nnz"]], tokens: Tokens, purpose: str = MATCHES
    ) -> tuple[SparseCodes, list[Float[Tensor, "NNZ"]]]:
        """Kept matches, and numbers that belong to them, of all tokens that this rank sees."""
        if self.gathered.size == 1:
            return codes, list(of_matches)
        counts = self.gathered.gather(codes.counts.int(), purpose, tokens.counts)
        offsets = pad(counts.long().cumsum(0), (1, 0))
        borders = offsets[[0, *(part.stop for part in tokens.parts)]]
        lengths = borders.diff().tolist()  # the host has to know how much arrives
        latents = self.gathered.gather(codes.latents.int(), purpose, lengths).long()
        columns = torch.stack([codes.values, *of_matches], dim=1)
        values, *others = self.gathered.gather(columns, purpose, lengths).T.contiguous().unbind()
        seen = replace(codes, values=values, latents=latents, offsets=offsets, shape=(tokens.total,))
        return seen, others

    def rows(self, own: Float[Tensor, "B_d d"], tokens: Tokens, purpose: str = ROWS) -> Float[Tensor, "V d"]:
        """A row for each token that this rank sees, of the rows of each rank's own tokens."""
        return self.gathered.gather(own, purpose, tokens.counts if self.gathered.size > 1 else None)

    def seen(self, whole: Shaped[Tensor, "B *d"], tokens: Tokens) -> Shaped[Tensor, "V *d"]:
        """Of the whole batch what belongs to the tokens whose matches this rank sees."""
        return whole if self.summed.size == 1 else whole[tokens.own]

    def share(self, seen: Shaped[Tensor, "n *d"]) -> Shaped[Tensor, "m *d"]:
        """This rank's part of what all ranks of `gathered` have alike, so that a sum over them takes it once."""
        return seen[_slice(self.gathered.part(len(seen)))]

    def own_of_alike(self, own: Shaped[Tensor, "B_d *d"]) -> Shaped[Tensor, "m *d"]:
        """The same of rows of own tokens, which all ranks of `mesh.latent` have alike."""
        return own[_slice(self.mesh.latent.part(len(own)))]


ALONE = Exchange()


def added_up(axis: Axis, purpose: str, first: Tensor, *others: Tensor | float) -> list[Tensor | float]:
    """Each number's sum over the ranks, in float64; one process keeps them as they are."""
    if axis.size == 1:
        return [first, *others]
    numbers = [as_double(number, first.device) for number in (first, *others)]
    return list(axis.sum(torch.stack(numbers), purpose).unbind())


def as_double(number: Tensor | float, device: torch.device) -> Float[Tensor, ""]:
    """A number in float64 on a device; filled in there, as a number that is sent makes the host wait."""
    if isinstance(number, Tensor):
        return number.double()
    return torch.full((), number, dtype=torch.float64, device=device)


def mean_row(axis: Axis, rows: Float[Tensor, "n d"], total: int, purpose: str) -> Float[Tensor, "d"]:
    """Mean of all ranks' rows, `total` together."""
    return rows.mean(0) if axis.size == 1 else axis.sum(rows.sum(0), purpose) / total


def _slice(numbers: range) -> slice:
    return slice(numbers.start, numbers.stop)
