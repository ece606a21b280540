"""Exact partial selection on a CPU: bounds from group maxima, then only what lies above them is looked at.

A table is cut into groups of consecutive numbers. As a row's m-th largest group maximum is reached by m numbers at
least, nothing below it can be among the row's m largest numbers: about m of them are left to be ranked, out of
thousands. Everything that equals the bound stays in, so ties are decided by rule and not by chance.
NaN counts as the largest number, as in `torch.sort`, so that it can't hide.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from saelab.kernels.keys import best_first, ordered

GROUP = 32  # numbers per group: the width at which torch's maximum along a row is fastest
TILE_ELEMENTS = 2**23  # of a table looked at together: what is taken out of it stays in cache
SAMPLE = 2**17  # group maxima from which the bound of a whole batch is guessed
CROWDED = 1 / 16  # budget per number from which groups no longer help
COARSE = 3  # groups per wanted number: about a fifth more than wanted then lies above the bound
SURPLUS = 1.05  # the guess aims at this many times the budget, so that it seldom misses


class Picks(NamedTuple):
    """Chosen numbers of a table, in ascending order of place."""

    values: Float[Tensor, "n"]
    places: Int[Tensor, "n"]
    """Row · columns + column."""


def best_of_rows(table: Float[Tensor, "R C"], budgets: Int[Tensor, "R"]) -> Picks:
    """The `budgets[r]` largest numbers of every row r; among equals the lower column wins.

    Args:
        table: contiguous.
        budgets: from 0 to C.
    """
    if table.numel() == 0:
        return _nothing(table)
    rows = max(1, TILE_ELEMENTS // table.shape[1])
    parts = [_best_of_tile(*tile) for tile in zip(table.split(rows), budgets.split(rows), strict=True)]
    places = [part.places + number * rows * table.shape[1] for number, part in enumerate(parts)]
    return Picks(torch.cat([part.values for part in parts]), torch.cat(places))


def best_of_all(table: Float[Tensor, "R C"], budget: int) -> Picks:
    """The `budget` largest numbers of a contiguous table; among equals the lower (row, column) wins."""
    budget = min(budget, table.numel())
    if budget == 0:
        return _nothing(table)
    groups = grouped(table)
    maxima = groups.maxima.view(-1)
    above = _all_not_below(groups, guess(maxima, budget))
    if above.places.numel() < budget:
        bound = largest(maxima, budget) if budget <= len(maxima) else maxima.new_tensor(-torch.inf)
        above = _all_not_below(groups, bound)
    keys = ordered(above.values)
    last = largest(keys, budget)
    wins = keys > last
    tied = (keys == last).nonzero()[: budget - int(wins.sum()), 0]
    wins[tied] = True
    return Picks(above.values.masked_select(wins), above.places.masked_select(wins))


def _nothing(table: Float[Tensor, "R C"]) -> Picks:
    return Picks(table.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=table.device))


class Groups(NamedTuple):
    """A table cut into groups of consecutive numbers."""

    members: Float[Tensor, "R*n size"]
    maxima: Float[Tensor, "R n"]


def group_size(columns: int) -> int:
    """The widest group of which a row of so many columns consists."""
    return next(size for size in (GROUP, 16, 8, 4, 2, 1) if columns % size == 0)


def grouped(table: Float[Tensor, "R C"]) -> Groups:
    """A contiguous table in groups."""
    size = group_size(table.shape[1])
    members = table.view(-1, size)
    return Groups(members, members.amax(1).view(len(table), table.shape[1] // size) if size > 1 else table)


def _best_of_tile(table: Float[Tensor, "r C"], budgets: Int[Tensor, "r"]) -> Picks:
    crowded = int(budgets.sum()) > CROWDED * table.numel()  # hardly a group would be left out
    groups = Groups(table.view(-1, 1), table) if crowded else grouped(table)
    above = _not_below(groups, row_bounds(table, groups.maxima, budgets))
    rows = torch.div(above.places, table.shape[1], rounding_mode="floor")
    counts = torch.bincount(rows, minlength=len(table))
    overfull = counts > budgets
    if not bool(overfull.any()):
        return above
    contested = overfull.index_select(0, rows).nonzero()[:, 0]
    values, rows = above.values.index_select(0, contested), rows.index_select(0, contested)
    losers = contested[ranks(values, rows, torch.bincount(rows, minlength=len(table))) >= budgets[rows]]
    wins = torch.ones_like(above.places, dtype=torch.bool).index_fill_(0, losers, False)
    return Picks(above.values.masked_select(wins), above.places.masked_select(wins))


def row_bounds(
    table: Float[Tensor, "r C"], maxima: Float[Tensor, "r n"], budgets: Int[Tensor, "r"]
) -> Float[Tensor, "r"]:
    """A number that at least `budget` of a row's numbers reach; inf for budget 0.

    Up to half as many as there are groups, it is the maximum of a group, or of several groups where they are plenty;
    beyond that too many numbers would lie above it, and the row itself is sorted. Rows of like budgets are looked at
    together: a partial sort costs what the largest budget asks for.
    """
    bounds = table.new_full((len(table),), torch.inf)
    low, groups = 0, maxima.shape[1]
    while low < table.shape[1]:
        high = min(max(8, 4 * low), groups // 2) if low < groups // 2 else table.shape[1]
        rows = ((budgets > low) & (budgets <= high)).nonzero()[:, 0]
        if len(rows):
            wanted = budgets[rows]
            most = int(wanted.max())
            source = _coarser(maxima, COARSE * most) if most <= groups // 2 else table
            source = source if len(rows) == len(source) else source[rows]
            bounds[rows] = _row_best(source, wanted)
        low = high
    return bounds


def _row_best(table: Float[Tensor, "r n"], numbers: Int[Tensor, "r"]) -> Float[Tensor, "r"]:
    """Of every row r the `numbers[r]`-th largest."""
    most = int(numbers.max())
    if bool((numbers == most).all()):
        return table.topk(most, dim=1, sorted=False).values.amin(1)
    return table.topk(most, dim=1).values.gather(1, numbers[:, None] - 1)[:, 0]


def _coarser(maxima: Float[Tensor, "r n"], enough: int) -> Float[Tensor, "r m"]:
    """Maxima of fewer, larger groups, but `enough` of them."""
    together = 1
    while maxima.shape[1] % (2 * together) == 0 and maxima.shape[1] // (2 * together) >= enough:
        together *= 2
    return maxima if together == 1 else maxima.unflatten(1, (-1, together)).amax(2)


def _not_below(groups: Groups, bounds: Float[Tensor, "r"]) -> Picks:
    """Every number of a row that is not below the row's bound."""
    count, size = groups.maxima.shape[1], groups.members.shape[1]
    kept = (~(groups.maxima < bounds[:, None])).view(-1).nonzero()[:, 0]
    if size == 1:
        return Picks(groups.members.view(-1).index_select(0, kept), kept)
    members = groups.members.index_select(0, kept)
    member_bounds = bounds.index_select(0, torch.div(kept, count, rounding_mode="floor"))
    within = (~(members < member_bounds[:, None])).view(-1).nonzero()[:, 0]
    owner = torch.div(within, size, rounding_mode="floor")
    places = kept.index_select(0, owner).mul_(size).add_(within).sub_(owner, alpha=size)
    return Picks(members.view(-1).index_select(0, within), places)


def _all_not_below(groups: Groups, bound: Float[Tensor, ""]) -> Picks:
    """Every number that is not below one bound, tile by tile."""
    count, size = groups.maxima.shape[1], groups.members.shape[1]
    rows = max(1, TILE_ELEMENTS // (count * size))
    starts = range(0, len(groups.maxima), rows)
    tiles = zip(groups.members.split(rows * count), groups.maxima.split(rows), strict=True)
    parts = [_not_below(Groups(*tile), bound.expand(len(tile[1]))) for tile in tiles]
    places = [part.places + start * count * size for start, part in zip(starts, parts, strict=True)]
    return Picks(torch.cat([part.values for part in parts]), torch.cat(places))


def ranks(values: Float[Tensor, "n"], rows: Int[Tensor, "n"], counts: Int[Tensor, "r"]) -> Int[Tensor, "n"]:
    """Place of every number in its row, 0 = largest; among equals the earlier comes first.

    Args:
        rows: ascending.
        counts: numbers per row.
    """
    order = best_first(ordered(values), rows)
    starts = (counts.cumsum(0) - counts).index_select(0, rows)  # sorting leaves every row where it is
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device) - starts)


def guess(maxima: Float[Tensor, "n"], budget: int) -> Float[Tensor, ""]:
    """A bound that slightly more than `budget` of the group maxima reach, judged by an even sample of them."""
    sample = maxima[:: max(1, len(maxima) // SAMPLE)]
    return largest(sample, min(len(sample), int(SURPLUS * budget * len(sample) / len(maxima)) + 16))


def largest(values: Num[Tensor, "n"], number: int) -> Num[Tensor, ""]:
    """The `number`-th largest, NaN above all."""
    return values.kthvalue(len(values) - number + 1).values
