"""Work that is done item by item, in turns: rank r takes items r, r + N, …; the first rank gets all results in order.

So what the first rank adds up, it adds up in the order of one process: to the same bits. Results are named tensors of
any dtype and shape; they travel as bytes through the CPU, and nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from saelab.ranks.axis import Axis

T = TypeVar("T")
_END = -1  # in the place of a length: nothing more comes


def in_turns(
    axis: Axis,
    items: Iterable[T],
    work: Callable[[T], Mapping[str, Tensor]],
    purpose: str = "results",
    everywhere: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """On the first rank the result of every item, in the order of the items; on the others nothing.

    All ranks walk the same items, as many at a time as there are ranks, and must run through the iterator. One process
    alone works on an item when its result is asked for, and hands it over as it is. Others hand over copies on the CPU.
    A rank has at most two results in memory: one that is on its way, and one in the making.

    Args:
        everywhere: give every rank all results.
    """
    if axis.size == 1:
        for item in items:
            yield dict(work(item))
        return
    remaining = iter(items)
    arrived: list[Callable[[], None]] = []
    while some := list(islice(remaining, axis.size)):
        own = work(some[axis.index]) if axis.index < len(some) else {}
        if everywhere:
            yield from (_shared(axis, rank, own, purpose) for rank in range(len(some)))
        elif axis.index == 0:
            yield dict(own)
            yield from (_received(axis, rank, purpose) for rank in range(1, len(some)))
        elif axis.index < len(some):
            _wait(arrived)
            arrived = _send(axis, own)
    _wait(arrived)


def from_first(
    axis: Axis, items: Iterable[Mapping[str, Tensor]], purpose: str = "handed out"
) -> Iterator[dict[str, Tensor]]:
    """The first rank's items, handed to every rank; those of the other ranks are not looked at.

    All ranks must run through the iterator. The first rank gets its own items as they are, the others copies on the
    CPU.
    """
    if axis.index == 0:
        for item in items:
            yield _shared(axis, 0, item, purpose)
        _length(axis, 0, _END, purpose)
        return
    while (length := _length(axis, 0, 0, purpose)) != _END:
        yield unpacked(axis.broadcast(torch.empty(length, dtype=torch.uint8), 0, purpose))


def packed(tensors: Mapping[str, Tensor]) -> UInt8[Tensor, "bytes"]:
    """Names, dtypes and shapes as JSON, the length of that before it, and the numbers behind it."""
    described = [(name, str(one.dtype).removeprefix("torch."), list(one.shape)) for name, one in tensors.items()]
    header = torch.frombuffer(bytearray(json.dumps(described).encode()), dtype=torch.uint8)
    length = torch.tensor([len(header)]).view(torch.uint8)
    return torch.cat([length, header, *(_bytes(tensor) for tensor in tensors.values())])


def unpacked(content: UInt8[Tensor, "bytes"]) -> dict[str, Tensor]:
    """What was packed, in copies that share no memory."""
    start = 8 + int(content[:8].clone().view(torch.int64))
    tensors: dict[str, Tensor] = {}
    for name, dtype, shape in json.loads(content[8:start].numpy().tobytes()):
        of = getattr(torch, dtype)
        end = start + torch.Size(shape).numel() * of.itemsize
        tensors[name] = content[start:end].clone().view(of).reshape(shape)
        start = end
    return tensors


def _bytes(tensor: Tensor) -> UInt8[Tensor, "bytes"]:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _send(axis: Axis, result: Mapping[str, Tensor]) -> list[Callable[[], None]]:
    content = packed(result)
    return [axis.begin_send(part, 0) for part in (torch.tensor([len(content)]), content)]


def _received(axis: Axis, rank: int, purpose: str) -> dict[str, Tensor]:
    length = int(axis.receive(torch.zeros(1, dtype=torch.int64), rank, purpose))
    return unpacked(axis.receive(torch.empty(length, dtype=torch.uint8), rank, purpose))


def _shared(axis: Axis, origin: int, result: Mapping[str, Tensor], purpose: str) -> dict[str, Tensor]:
    """What rank `origin` has, which keeps it as it is."""
    if axis.size == 1:
        return dict(result)
    if axis.index == origin:
        content = packed(result)
        _length(axis, origin, len(content), purpose)
        axis.broadcast(content, origin, purpose)
        return dict(result)
    content = torch.empty(_length(axis, origin, 0, purpose), dtype=torch.uint8)
    return unpacked(axis.broadcast(content, origin, purpose))


def _length(axis: Axis, origin: int, own: int, purpose: str) -> int:
    return int(axis.broadcast(torch.tensor([own]), origin, purpose))


def _wait(arrived: Iterable[Callable[[], None]]) -> None:
    for wait in arrived:
        wait()
