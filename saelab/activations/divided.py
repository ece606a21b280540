"""One pass for several processes: each activation is read or computed by one of them and handed to all.

The ranks take the groups (bufferfuls) of a pass in turns. When it is the first rank's turn, every rank loads its next
group, all at the same time; then one after another hands its group out, batch by batch. So every rank holds one group,
as one process does, and every batch is, bit for bit, that of one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.activations.columns import Rows, concatenate
from saelab.activations.shuffle import Group, Part, ShuffledGroups
from saelab.activations.source import Origin, deliver
from saelab.ranks.mesh import Mesh

_ALIGNMENT = 512  # bytes: as memory of its own begins; products of less aligned numbers may round differently
Arriving = Callable[[], Rows]


class DividedPass:
    """The `ActivationPass` of all ranks of a mesh over `of`, which each of them has opened in the same way.

    All ranks ask for the same samples and the same batches, in the same order.

    Args:
        of: what each rank reads or computes its groups from.
        until: how many tokens will be asked for. Beyond them everything goes on, but nothing is made ahead.
    """

    def __init__(self, of: ShuffledGroups, mesh: Mesh, until: int) -> None:
        self.of, self.feeds, self.device = of, of.feeds, of.device
        self._world, self._ranks, self._until = mesh.world, mesh.ranks, until
        self._kind = ""

    @property
    def n_tokens(self) -> int | None:
        """As `ActivationPass.n_tokens`."""
        return self.of.n_tokens

    def origin(self, feed: int) -> Origin:
        """As `ActivationPass.origin`."""
        return self.of.origin(feed)

    def d_in(self, feed: int) -> int:
        """As `ActivationPass.d_in`."""
        return self.of.d_in(feed)

    def d_out(self, feed: int) -> int:
        """As `ActivationPass.d_out`."""
        return self.of.d_out(feed)

    def target_widths(self, feed: int) -> tuple[int, ...]:
        """As `ActivationPass.target_widths`."""
        return self.of.target_widths(feed)

    def sample(self, n: int) -> tuple[ActivationBatch, ...]:
        """As `ActivationPass.sample`; the first rank makes it."""
        rows = self.of.sampled(n) if self._world.index == 0 else None
        kind, count = json.loads(self._ranks.share("sample", lambda: _described(rows)))
        return deliver(self._hand_out(rows, kind, count, 0)(), self.feeds)

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[tuple[ActivationBatch, ...]]:
        """As `ActivationPass.batches`. The next batch travels while this one is worked on."""
        self.of.require(batch_size)
        return self._batches(batch_size, seed, start * batch_size)

    def _batches(self, batch_size: int, seed: int, at: int) -> Iterator[tuple[ActivationBatch, ...]]:
        turns = _Turns(self.of, seed, self._world.index, self._world.size, self._until)
        arriving = self._send(turns, at, batch_size)
        while True:
            batch = deliver(arriving(), self.feeds)
            at += batch_size
            ahead = at < self._until
            if ahead:
                arriving = self._send(turns, at, batch_size)
            yield batch
            if not ahead:
                arriving = self._send(turns, at, batch_size)

    def _send(self, turns: _Turns, at: int, count: int) -> Arriving:
        """Begin to hand out rows, which may lie in groups of several ranks."""
        arriving: list[Arriving] = []
        for part in self.of.parts(at, count):
            owner = turns.owner(part, at)
            rows = self.of.rows(part, turns.seed) if owner == self._world.index else None
            if not self._kind:  # the first rank has the first turn, so that it can tell
                self._kind = self._ranks.share("columns", lambda rows=rows: _described(rows))
            arriving.append(self._hand_out(rows, json.loads(self._kind)[0], part.count, owner))
            at += part.count
        return lambda: concatenate([rows() for rows in arriving])

    def _hand_out(self, rows: Rows | None, kind: Sequence[tuple[str, int, bool]], count: int, owner: int) -> Arriving:
        """The owner's rows to all ranks: a function that waits for them and has them in float32."""
        parcel, tokens, values, scales = _room(kind, count, self.device)
        row_scales = {column: of for column, of in zip(self.of.columns, scales, strict=True) if of is not None}
        there = Rows(dict(zip(self.of.columns, values, strict=True)), tokens, row_scales)
        if rows is not None:
            there.put(slice(None), rows)
        wait = self._world.begin_broadcast(parcel, owner, "batches")

        def arrived() -> Rows:
            wait()
            return there.to(self.device)

        return arrived


class _Turns:
    """Who has which group, counted from the first that is wanted."""

    def __init__(self, of: ShuffledGroups, seed: int, rank: int, ranks: int, until: int) -> None:
        self.of, self.seed, self.rank, self.ranks, self.until = of, seed, rank, ranks, until
        self.group: Group | None = None
        self.turn = -1

    def owner(self, part: Part, at: int) -> int:
        """The rank whose group it is. When the first rank's turn comes, every rank loads its next group.

        Args:
            at: number of the part's first row among all that are ever delivered.
        """
        if part.group != self.group:
            self.group, self.turn = part.group, self.turn + 1
            if self.turn % self.ranks == 0:
                self._load_own(at)
        return self.turn % self.ranks

    def _load_own(self, at: int) -> None:
        for _ in range(self.rank):
            (part,) = self.of.parts(at, 1)
            at += part.group.size - part.offset
        if at < self.until:
            (part,) = self.of.parts(at, 1)
            self.of.load(part, self.seed)


def _described(rows: Rows | None) -> str:
    """Of each column, in the order of the pass, its type, its width and whether its rows have scales; how many rows."""
    assert rows is not None  # asked of the rank that has them
    kind = [
        [str(values.dtype).removeprefix("torch."), values.shape[1], column in rows.row_scales]
        for column, values in sorted(rows.columns.items())
    ]
    return json.dumps([kind, len(rows)])


def _room(
    kind: Sequence[tuple[str, int, bool]], count: int, device: torch.device
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor | None]]:
    """Bytes for some rows, and views of them: token numbers, values of each column, scales of its rows."""
    shapes: list[tuple[torch.dtype, tuple[int, ...]]] = [(torch.int64, (count,))]
    for dtype, width, scaled in kind:
        shapes += [(getattr(torch, dtype), (count, width)), (torch.float32, (count * scaled,))]
    sizes = [prod(shape) * dtype.itemsize for dtype, shape in shapes]
    spaces = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
    parcel = torch.empty(sum(spaces), dtype=torch.uint8, device=device)
    tokens, *views = [
        space[:size].view(dtype).view(shape)
        for space, size, (dtype, shape) in zip(parcel.split(spaces), sizes, shapes, strict=True)
    ]
    scales = [view if scaled else None for view, (_, _, scaled) in zip(views[1::2], kind, strict=True)]
    return parcel, tokens, views[::2], scales
