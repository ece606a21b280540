"""The exact threshold of numbers that lie on several ranks, from a few histograms of their digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

DIGIT = 11  # bits looked at in one round: 2,048 counts travel, three rounds for the keys of fp32


class Threshold(NamedTuple):
    """The smallest of the winners."""

    key: Int[Tensor, ""]
    quota: Int[Tensor, ""]
    """How many of the keys that equal it win."""
    tied: Int[Tensor, ""]
    """How many keys equal it."""


def threshold(
    keys: Int[Tensor, "n"], budget: int, total: Callable[[Int[Tensor, "bins"]], Int[Tensor, "bins"]]
) -> Threshold:
    """Where the `budget` largest keys of all ranks end; budgets beyond all keys take them all.

    Digit by digit from the highest: as many keys have a larger digit as have won already, and the threshold's digit is
    the one at which the budget is reached. Only keys that share all digits so far are counted. No number is fetched
    from the device.

    Args:
        keys: this rank's part.
        total: sum of the ranks' counts, the same on each.
    """
    limits = torch.iinfo(keys.dtype)
    unsigned = keys ^ limits.min  # flips the sign: negative keys have the smaller digits
    alive = torch.ones_like(keys, dtype=torch.int64)
    key, left, tied = (torch.full((), number, device=keys.device) for number in (limits.min, budget, 0))
    for high in range(limits.bits, 0, -DIGIT):
        low = max(0, high - DIGIT)
        bins = 1 << (high - low)
        digits = (unsigned >> low).long() & (bins - 1)
        counts = total(torch.zeros(bins, dtype=torch.int64, device=keys.device).index_add_(0, digits, alive))
        reached = counts.flip(0).cumsum(0).flip(0)  # keys with this digit or a larger one
        left = torch.minimum(left, reached[0])
        digit = (reached >= left).sum() - 1
        tied = counts.index_select(0, digit[None])[0]
        left = left - (reached.index_select(0, digit[None])[0] - tied)
        alive *= digits == digit
        key = key + (digit << low)
    return Threshold(key.to(keys.dtype), left, tied)
