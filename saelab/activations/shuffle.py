"""Shuffled batches of something too large to shuffle: groups that fit in memory, permuted one at a time.

The tokens of an epoch form groups of `buffer_tokens` (the last may be smaller); a group is loaded, its rows are
permuted by (seed, epoch, group), and batches are read off one group after another. Which rows a batch holds follows
from its number by arithmetic, so any batch is reached without making those before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.activations.batch import ActivationBatch, concatenate
from saelab.errors import UserError


class Group(NamedTuple):
    """One bufferful of an epoch."""

    epoch: int
    number: int
    size: int


class ShuffledGroups(ABC):
    """Batches and samples for any source that can load a group."""

    def __init__(self, buffer_tokens: int, seed: int, device: torch.device) -> None:
        if buffer_tokens < 1:
            raise UserError(f"a buffer of {buffer_tokens} tokens holds nothing; make it at least one batch")
        self.buffer_tokens, self.seed, self.device = buffer_tokens, seed, device
        self._order: tuple[tuple[int, Group], Tensor] | None = None

    @abstractmethod
    def _place(self, token: int) -> tuple[Group, int]:
        """Group of the `token`-th row ever delivered, and how many of the group's rows come before it."""

    @abstractmethod
    def _load(self, group: Group, seed: int, count: int) -> ActivationBatch:
        """At least the first `count` rows of a group, unpermuted; valid until the next call."""

    @abstractmethod
    def _available(self, n: int) -> int:
        """The smaller of `n` and the tokens of an epoch."""

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[ActivationBatch]:
        """Batches number `start`, `start + 1`, … without end: float32, on `self.device`.

        A pure function of (batch_size, seed, number): where one starts makes no difference to any bit of a batch.

        Raises:
            UserError: `batch_size` exceeds the buffer or the data.
        """
        if not 1 <= batch_size <= self.buffer_tokens:
            raise UserError(f"a batch of {batch_size} tokens does not fit a buffer of {self.buffer_tokens} tokens")
        if (available := self._available(batch_size)) < batch_size:
            raise UserError(f"a batch of {batch_size} tokens is larger than the data, which is {available} tokens")
        return self._batches(batch_size, seed, start * batch_size)

    def sample(self, n: int) -> Float[Tensor, "n d_in"]:
        """The first `n` rows in shuffled order (fewer when an epoch has fewer), float32: for estimates."""
        parts: list[Tensor] = []
        at, n = 0, self._available(n)
        while at < n:
            group, _ = self._place(at)
            part = group._replace(size=min(group.size, n - at))
            rows = self._load(group, self.seed, part.size)
            parts.append(rows.take(permutation(self.seed, part)).to(self.device).x)
            at += part.size
        return torch.cat(parts)

    def _batches(self, batch_size: int, seed: int, at: int) -> Iterator[ActivationBatch]:
        while True:
            parts: list[ActivationBatch] = []
            missing = batch_size
            while missing:
                group, offset = self._place(at)
                count = min(missing, group.size - offset)
                rows = self._load(group, seed, group.size)
                parts.append(rows.take(self._permutation(seed, group)[offset : offset + count]).to(self.device))
                at, missing = at + count, missing - count
            yield concatenate(parts)

    def _permutation(self, seed: int, group: Group) -> Int[Tensor, "size"]:
        if self._order is None or self._order[0] != (seed, group):
            self._order = (seed, group), permutation(seed, group)
        return self._order[1]


def permutation(seed: int, group: Group) -> Int[Tensor, "size"]:
    """The order in which a group's rows are delivered."""
    return torch.from_numpy(np.random.default_rng([seed, 1, group.epoch, group.number]).permutation(group.size))
