"""`Axis`: ranks in a row that exchange tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Guard = Callable[[], AbstractContextManager[Any]]


class Axis:
    """Rank `index` of `size`; `Axis()` is one process alone, whose exchanges give back what they are given.

    All ranks of an axis call the same methods in the same order, with tensors of the same shape where nothing else is
    said. Every rank gets the same bits. A purpose is what the bytes are counted under: those that a rank receives when
    the group is a ring (all-gather: the others' parts; sum: twice (size − 1) / size of the tensor).

    Args:
        group: torch's group of these ranks; None for one alone.
        received: where bytes are counted.
        guard: what an exchange runs within: it says who is missing when one fails.
    """

    def __init__(
        self,
        index: int = 0,
        size: int = 1,
        group: ProcessGroup | None = None,
        received: Counter[str] | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        self.index, self.size = index, size
        self._group, self._guard = group, guard
        self._received: Counter[str] = Counter() if received is None else received

    def part(self, total: int) -> range:
        """This rank's share of `total` things in a row: as even as it goes, the first ranks have one more."""
        return self.parts(total)[self.index]

    def parts(self, total: int) -> list[range]:
        """The shares of all ranks, in order."""
        least, more = divmod(total, self.size)
        starts = [rank * least + min(rank, more) for rank in range(self.size + 1)]
        return [range(start, stop) for start, stop in pairwise(starts)]

    def sum(self, tensor: Shaped[Tensor, "*n"], purpose: str) -> Shaped[Tensor, "*n"]:
        """Sum over the ranks; `tensor` may be overwritten."""
        return self._reduced(tensor, dist.ReduceOp.SUM, purpose)

    def least(self, tensor: Shaped[Tensor, "*n"], purpose: str) -> Shaped[Tensor, "*n"]:
        """Smallest over the ranks, number by number; `tensor` may be overwritten."""
        return self._reduced(tensor, dist.ReduceOp.MIN, purpose)

    def gather(
        self, tensor: Shaped[Tensor, "n *d"], purpose: str, lengths: Sequence[int] | None = None
    ) -> Shaped[Tensor, "N *d"]:
        """All ranks' tensors one behind the other, in the order of the ranks.

        Args:
            lengths: first dimension of each rank's tensor, where they differ.
        """
        if self.size == 1:
            return tensor
        lengths = [len(tensor)] * self.size if lengths is None else lengths
        if len(lengths) != self.size or lengths[self.index] != len(tensor):
            raise ValueError(f"rank {self.index} of {self.size} gathers {len(tensor)} rows, not as in {list(lengths)}")
        longest = max(lengths)
        # Parts must be equal for torch: shorter ones travel with rows behind them, which are counted too.
        padded = tensor.contiguous()
        if len(tensor) < longest:
            padded = tensor.new_zeros(longest, *tensor.shape[1:])
            padded[: len(tensor)] = tensor
        out = tensor.new_empty(self.size * longest, *tensor.shape[1:])
        self._exchange(purpose, (self.size - 1) * padded.nbytes, dist.all_gather_single, out, padded)
        if min(lengths) == longest:
            return out
        return torch.cat([part[:length] for part, length in zip(out.split(longest), lengths, strict=True)])

    def sum_of_part(self, tensor: Shaped[Tensor, "n *d"], purpose: str) -> Shaped[Tensor, "m *d"]:
        """The rows `part(n)` of the sum over the ranks; `tensor` may be overwritten."""
        if self.size == 1:
            return tensor
        rows = self.parts(len(tensor))
        longest = len(rows[0])
        whole = tensor.contiguous()
        if len(rows[-1]) < longest:
            whole = tensor.new_zeros(self.size * longest, *tensor.shape[1:])
            for part, own in zip(whole.split(longest), rows, strict=True):
                part[: len(own)] = tensor[own.start : own.stop]
        out = tensor.new_empty(longest, *tensor.shape[1:])
        self._exchange(purpose, (self.size - 1) * out.nbytes, dist.reduce_scatter_single, out, whole)
        return out[: len(rows[self.index])]

    def broadcast(self, tensor: Shaped[Tensor, "*n"], origin: int, purpose: str) -> Shaped[Tensor, "*n"]:
        """What rank `origin` of the axis has, written into everybody's `tensor`."""
        self.begin_broadcast(tensor, origin, purpose)()
        return tensor

    def begin_broadcast(self, tensor: Shaped[Tensor, "*n"], origin: int, purpose: str) -> Callable[[], None]:
        """The same without waiting for it: the function that is returned does. Until then leave `tensor` alone."""
        if self.size == 1 or tensor.numel() == 0:
            return lambda: None
        if not tensor.is_contiguous():
            raise ValueError("what is broadcast is written in place, so it must be contiguous")
        if self.index != origin:
            self._received[purpose] += tensor.nbytes
        with self._guard():
            work = dist.broadcast(tensor, group=self._group, group_src=origin, async_op=True)
        assert work is not None  # this rank is one of the group

        def wait() -> None:
            with self._guard():
                work.wait()

        return wait

    def begin_send(self, tensor: Shaped[Tensor, "*n"], to: int) -> Callable[[], None]:
        """Send it to rank `to` of the axis, which calls `receive`, without waiting: the function that is returned does.

        Until then leave `tensor` alone. There is nobody to send to on an axis of one.
        """
        with self._guard():
            work = dist.isend(tensor, group=self._group, group_dst=to)
        assert work is not None  # this rank is one of the group

        def wait() -> None:
            with self._guard():
                work.wait()

        return wait

    def receive(self, tensor: Shaped[Tensor, "*n"], origin: int, purpose: str) -> Shaped[Tensor, "*n"]:
        """What rank `origin` of the axis sends, written into `tensor`."""
        self._received[purpose] += tensor.nbytes
        with self._guard():
            dist.recv(tensor, group=self._group, group_src=origin)
        return tensor

    def _reduced(self, tensor: Tensor, how: Any, purpose: str) -> Tensor:
        if self.size == 1:
            return tensor
        tensor = tensor.contiguous()
        self._exchange(purpose, 2 * (self.size - 1) * tensor.nbytes // self.size, dist.all_reduce, tensor, how)
        return tensor

    def _exchange(self, purpose: str, nbytes: int, exchange: Callable[..., Any], *arguments: Any) -> None:
        """Nothing travels where there is nothing: a tensor is empty on all ranks or on none."""
        if nbytes == 0:
            return
        self._received[purpose] += nbytes
        with self._guard():
            exchange(*arguments, group=self._group)
