"""Which direction of one set belongs to which of another: nearest ones, and partners one-to-one.

Both work in tiles: the table of all cosines is in memory only where it is small.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.evaluation.truth.assignment import best_assignment
from saelab.progress import track

CANDIDATES = 64  # nearest columns among which a row looks for its partner where the table is too large
EPSILON = 1e-3  # of cosine: what a bid adds at least
_EXACT = 2**22  # pairs up to which the best matching is searched for without an approximation
_TILE_ELEMENTS = 2**24  # cosines held at once: 64 MB in fp32


class Matching(NamedTuple):
    """Partners of the rows."""

    column: Int[Tensor, "n"]
    """Of every row, no column twice; -1 for a row without a partner of cosine above 0."""
    cosine: Float[Tensor, "n"]
    """With that partner, 0 without one; fp64."""
    gap: float
    """By how much the mean cosine of the best matching there is can exceed the mean of `cosine`, at most."""


class Nearest(NamedTuple):
    """The largest cosines, each way, and the few largest of each row."""

    of_rows: Float[Tensor, "n"]
    of_columns: Float[Tensor, "m"]
    columns: Int[Tensor, "n c"]
    cosines: Float[Tensor, "n c"]


def nearest(rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], candidates: int = CANDIDATES) -> Nearest:
    """For each row and column the largest cosine with one of the other side, in tiles.

    Args:
        rows, columns: unit vectors (or zero).
        candidates: how many of each row's nearest columns are named.
    """
    of_columns = rows.new_full((len(columns),), -1.0)
    places, cosines = [], []
    takes_long = len(rows) * len(columns) > _EXACT
    with track(len(rows), "match", "latents") if takes_long else nullcontext() as bar:
        for tile in rows.split(max(1, _TILE_ELEMENTS // len(columns))):
            table = tile @ columns.T
            of_columns = torch.maximum(of_columns, table.amax(0))
            best = table.topk(min(candidates, len(columns)), dim=1)
            places.append(best.indices.cpu())
            cosines.append(best.values.cpu())
            if bar is not None:
                bar.advance(len(tile))
    named = torch.cat(cosines)
    return Nearest(named[:, 0], of_columns.cpu(), torch.cat(places), named)


def match(rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], near: Nearest) -> Matching:
    """The one-to-one matching with the largest sum of cosines; a pair with a cosine below 0 counts as none, with 0.

    Exact (`best_assignment`) for up to 2^22 pairs. Above that by auction (Bertsekas 1988) among each row's nearest
    columns; what that can have lost is bounded by duality over all pairs, and is the `gap`.

    Args:
        rows, columns: unit vectors (or zero), n ≤ m.
        near: what `nearest` says of them.
    """
    if len(rows) * len(columns) <= _EXACT:
        table = (rows @ columns.T).double().cpu().clamp(min=0)
        column = best_assignment(table)
        cosine = table.gather(1, column[:, None])[:, 0]
        return Matching(torch.where(cosine > 0, column, -1), cosine, 0.0)
    value = near.cosines.double()
    column, price = auction(value.numpy(), near.columns.numpy(), len(columns))
    chosen = (near.columns == column[:, None]) & (column >= 0)[:, None]
    cosine = torch.where(chosen, value, 0.0).sum(1)
    alone = near.of_rows.double().clamp(min=0).sum()  # every row with its nearest, shared or not
    bound = torch.minimum(alone, price.sum() + _largest_profits(rows, columns, price))
    return Matching(column, cosine, max(0.0, float(bound - cosine.sum()) / len(rows)))


def auction(
    value: np.ndarray, columns: np.ndarray, n_columns: int, epsilon: float = EPSILON
) -> tuple[Int[Tensor, "n"], Float[Tensor, "m"]]:
    """Partners by bidding: every row without one offers for its best column what it would lose with its second best.

    The highest offer takes the column and becomes its price; whoever had it bids again. A row that gains from no column
    stays alone. Prices begin at 0 and only rise, so the sum of values is within twice `epsilon` a row of the largest;
    once for the bids, once for a little noise on the values, without which rows that are alike would queue for one
    column after the other.

    Args:
        value: `[n, c]`, of a row's candidates.  columns: `[n, c]`, which columns they are, none twice in a row.

    Returns:
        The column of every row (-1: none), and the price of every column.
    """
    value = value + np.random.default_rng(0).uniform(0, epsilon, value.shape)
    price = np.zeros(n_columns)
    row_of = np.full(n_columns, -1)
    offered = np.empty(n_columns, dtype=np.int64)  # who bid most for a column in this round
    bidders = np.arange(len(value))
    while bidders.size:
        profit = value[bidders] - price[columns[bidders]]
        best = profit.argmax(1)[:, None]
        most = np.take_along_axis(profit, best, 1)[:, 0]
        np.put_along_axis(profit, best, 0.0, 1)  # in its place: what staying alone is worth
        gains = most > 0
        bidders, wanted = bidders[gains], np.take_along_axis(columns[bidders], best, 1)[gains, 0]
        bid = price[wanted] + (most - profit.max(1).clip(min=0.0))[gains] + epsilon
        rising = np.argsort(bid, kind="stable")  # of repeated indices the last one is written
        price[wanted[rising]] = bid[rising]
        offered[wanted[rising]] = bidders[rising]
        sold = np.unique(wanted)
        before = row_of[sold]
        row_of[sold] = offered[sold]
        bidders = np.concatenate([bidders[offered[wanted] != bidders], before[before >= 0]])
    partner = np.full(len(value), -1)
    taken = np.flatnonzero(row_of >= 0)
    partner[row_of[taken]] = taken
    return torch.from_numpy(partner), torch.from_numpy(price)


def _largest_profits(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], price: Float[Tensor, "m"]
) -> Float[Tensor, ""]:
    """Sum over rows of what each gains at most under `price`, over all columns: with all prices a bound on any sum."""
    cost = price.to(rows)
    tiles = rows.split(max(1, _TILE_ELEMENTS // len(columns)))
    return torch.stack([(tile @ columns.T - cost).amax(1).clamp(min=0).double().sum().cpu() for tile in tiles]).sum()
