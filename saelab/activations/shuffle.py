"""Shuffled batches of something too large to shuffle: groups that fit in memory, permuted one at a time.

The tokens of an epoch form groups of `buffer_tokens` (the last may be smaller); a group is loaded, its rows are
permuted by (seed, epoch, group), and batches are read off one group after another. Which rows a batch holds follows
from its number by arithmetic, so any batch is reached without making those before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.activations.columns import Column, Rows, concatenate
from saelab.activations.source import Feed, Origin, deliver
from saelab.errors import UserError
from saelab.models import Site


class Group(NamedTuple):
    """One bufferful of an epoch."""

    epoch: int
    number: int
    size: int


class Part(NamedTuple):
    """Rows of a group that are delivered one after another."""

    group: Group
    offset: int
    """How many of the group's rows are delivered before them."""
    count: int


class Loaded(Protocol):
    """A group in memory."""

    def take(self, rows: Int[Tensor, "n"], /) -> Rows:
        """Copies of some of its rows, numbered from 0 in the order of the text or the disk."""
        ...


class ShuffledGroups(ABC):
    """The `ActivationPass` of anything that can load a group.

    What is loaded, and in which order, depends on nothing but the seed, so a feed's batches are the same whatever
    other feeds there are; and a column that several feeds want is held once.
    """

    def __init__(
        self, feeds: Sequence[Feed], widths: Mapping[Site, int], buffer_tokens: int, seed: int, device: torch.device
    ) -> None:
        if buffer_tokens < 1:
            raise UserError(f"a buffer of {buffer_tokens} tokens holds nothing; make it at least one batch")
        self.feeds, self._widths = tuple(feeds), widths
        self.columns: tuple[Column, ...] = tuple(sorted({column for feed in feeds for column in feed.columns}))
        self.buffer_tokens, self.seed, self.device = buffer_tokens, seed, device
        self._order: tuple[tuple[int, Group], Tensor] | None = None

    @property
    @abstractmethod
    def n_tokens(self) -> int | None:
        """As `ActivationPass.n_tokens`."""

    @abstractmethod
    def origin(self, feed: int) -> Origin:
        """Where a feed's activations come from."""

    @abstractmethod
    def _place(self, token: int) -> tuple[Group, int]:
        """Group of the `token`-th row ever delivered, and how many of the group's rows come before it."""

    @abstractmethod
    def _load(self, group: Group, seed: int, count: int, delivered: Int[Tensor, "n"]) -> Loaded:
        """At least the first `count` rows of a group, with all columns; valid until the next call.

        Args:
            delivered: rows of the group that have been delivered, in their order: they are not wanted again, unless
                somebody goes back to them.
        """

    @abstractmethod
    def _available(self, n: int) -> int:
        """The smaller of `n` and the tokens of an epoch."""

    def d_in(self, feed: int) -> int:
        """Width of a feed's site."""
        return self._widths[self.feeds[feed].site]

    def d_out(self, feed: int) -> int:
        """Width of what a feed reconstructs."""
        return sum(self.target_widths(feed)) or self.d_in(feed)

    def target_widths(self, feed: int) -> tuple[int, ...]:
        """Width of each of a feed's target sites; () when the target is the site itself."""
        return tuple(self._widths[target] for target in self.feeds[feed].targets)

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[tuple[ActivationBatch, ...]]:
        """As `ActivationPass.batches`. Where one starts makes no difference to any bit of a batch."""
        self.require(batch_size)
        return self._batches(batch_size, seed, start * batch_size)

    def require(self, batch_size: int) -> None:
        """Refuse batches that there can't be."""
        if not 1 <= batch_size <= self.buffer_tokens:
            raise UserError(f"a batch of {batch_size} tokens does not fit a buffer of {self.buffer_tokens} tokens")
        if (available := self._available(batch_size)) < batch_size:
            raise UserError(f"a batch of {batch_size} tokens is larger than the data, which is {available} tokens")

    def sample(self, n: int) -> tuple[ActivationBatch, ...]:
        """As `ActivationPass.sample`."""
        return deliver(self.sampled(n), self.feeds)

    def sampled(self, n: int) -> Rows:
        """The rows of `sample`, with all columns, in float32 on `device`."""
        parts: list[Rows] = []
        for part in self.parts(0, self._available(n)):
            some = part.group._replace(size=part.count)
            order = permutation(self.seed, some)
            parts.append(self._load(some, self.seed, some.size, order[:0]).take(order).to(self.device))
        return concatenate(parts)

    def parts(self, at: int, count: int) -> Iterator[Part]:
        """Where the `count` rows lie that are delivered after the first `at` of all."""
        while count:
            group, offset = self._place(at)
            part = Part(group, offset, min(count, group.size - offset))
            yield part
            at, count = at + part.count, count - part.count

    def load(self, part: Part, seed: int) -> Loaded:
        """The group of a part, in memory; valid until another is loaded."""
        order = self._permutation(seed, part.group)
        return self._load(part.group, seed, part.group.size, order[: part.offset])

    def rows(self, part: Part, seed: int) -> Rows:
        """Copies of the rows of a part in the type in which they are held, on `device` or where the model runs."""
        order = self._permutation(seed, part.group)
        return self.load(part, seed).take(order[part.offset : part.offset + part.count])

    def _batches(self, batch_size: int, seed: int, at: int) -> Iterator[tuple[ActivationBatch, ...]]:
        while True:
            parts = [self.rows(part, seed).to(self.device) for part in self.parts(at, batch_size)]
            at += batch_size
            yield deliver(concatenate(parts), self.feeds)

    def _permutation(self, seed: int, group: Group) -> Int[Tensor, "size"]:
        if self._order is None or self._order[0] != (seed, group):
            self._order = (seed, group), permutation(seed, group)
        return self._order[1]


def permutation(seed: int, group: Group) -> Int[Tensor, "size"]:
    """The order in which a group's rows are delivered."""
    return torch.from_numpy(np.random.default_rng([seed, 1, group.epoch, group.number]).permutation(group.size))
