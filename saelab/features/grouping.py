"""Arrays worked on in groups: sums per group, and the best few of each group."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64, UInt32
from numpy.typing import NDArray


def rank_in_group(groups: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """0, 1, 2, … inside each run of equal entries of `groups`."""
    if not len(groups):
        return np.empty(0, np.int64)
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    lengths = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, lengths)


def sum_equal(
    keys: Int64[np.ndarray, "n"], weights: Float[np.ndarray, "n"]
) -> tuple[Int64[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """The distinct keys in ascending order, and the float64 sum of each one's weights."""
    if not len(keys):
        return keys, np.empty(0, np.float64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    return ordered[starts], np.add.reduceat(weights[order].astype(np.float64), starts)


def best_of_distinct(
    groups: Int64[np.ndarray, "n"], members: Int64[np.ndarray, "n"], order: UInt32[np.ndarray, "n"], count: int
) -> Int64[np.ndarray, "m"]:
    """Indices of each group's first `count` entries by `order`, at most one per (group, member).

    A member (a document, say) is represented by its own first entry by `order`; ties go to the earlier entry. Picking
    from the union of two picks gives what picking from everything gives, so long lists can be picked from in parts.

    Args:
        groups: group of each entry, below 2^31.
        members: member of each entry, below 2^32.
    """
    by_order = np.argsort(groups.astype(np.uint64) << np.uint64(32) | order, kind="stable")
    pairs = (groups << 32 | members)[by_order]
    _, firsts = np.unique(pairs, return_index=True)  # of equal pairs the one that comes first by `order`
    picked = by_order[np.sort(firsts)]
    return picked[rank_in_group(groups[picked]) < count]


def descending(values: NDArray) -> UInt32[np.ndarray, "n"]:
    """Keys that sort positive float32 values from the largest down (their bit patterns order as the numbers do)."""
    return ~np.ascontiguousarray(values, np.float32).view(np.uint32)


def scrambled(numbers: Int64[np.ndarray, "n"], seed: int) -> UInt32[np.ndarray, "n"]:
    """A fixed pseudo-random 32-bit key for each number: a draw that does not depend on the order of work.

    Source: the finalising mix of splitmix64 (Steele, Lea, Flood 2014).
    """
    mixed = numbers.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)
