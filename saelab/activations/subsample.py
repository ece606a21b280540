"""Which of the kept tokens are stored: a draw for each token, from nothing but the seed and its place."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from saelab.corpora.packing import TokenRows

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def drawn(rows: TokenRows, share: float, seed: int) -> Bool[Tensor, "n context"]:
    """True at the share of all positions that is stored.

    Position p of row r (its number in the corpus) is drawn if mix(mix(mix(seed) ^ r) ^ p) < share · 2⁶⁴; `mix` is
    the output function of splitmix64 (Steele, Lea and Flood 2014, figure 15). So a token's draw is the same whatever
    batch, shard or process it comes in.
    """
    n, context = rows.ids.shape
    if share >= 1:
        return torch.ones(n, context, dtype=torch.bool)
    numbers = np.arange(rows.start.row, rows.start.row + n, dtype=np.uint64)
    of_row = _mix(_mix(np.array([seed % 2**64], np.uint64)) ^ numbers)
    of_token = _mix(of_row[:, None] ^ np.arange(context, dtype=np.uint64))
    return torch.from_numpy(of_token < np.uint64(int(share * 2**64)))


def most_drawn(tokens: int, share: float) -> int:
    """More than are drawn of so many tokens, but for one time in 10⁹: six standard deviations above the mean."""
    return min(tokens, math.ceil(tokens * share + 6 * math.sqrt(tokens * share * (1 - share))))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Arrays of unsigned integers wrap around without a word, as the function wants."""
    z = z + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
