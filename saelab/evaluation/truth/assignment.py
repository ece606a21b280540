"""One-to-one matching of rows to columns with the largest sum."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def best_assignment(score: Float[Tensor, "n m"]) -> Int[Tensor, "n"]:
    """The column of every row, no column twice, so that the sum of scores is as large as it can be; exact.

    Rows are added one at a time along the shortest augmenting path, under prices that keep reduced costs ≥ 0 (the
    Hungarian method; Jonker and Volgenant 1987). O(n² m), the inner loop over columns vectorised.

    Args:
        score: n ≤ m, finite.

    Raises:
        ValueError: more rows than columns, so that some row must go without.
    """
    cost = -score.detach().cpu().double().numpy()
    n, m = cost.shape
    if n > m:
        raise ValueError(f"{n} rows can't each have one of {m} columns")
    row_price, column_price = np.zeros(n), np.zeros(m)
    row_of = np.full(m, -1)  # of every column; -1 = free
    column_of = np.full(n, -1)
    for start in range(n):
        distance = np.full(m, np.inf)
        before = np.full(m, -1)  # row from which a column was reached
        done = np.zeros(m, dtype=bool)
        row, reached = start, 0.0
        while True:
            through = reached + cost[row] - row_price[row] - column_price
            nearer = ~done & (through < distance)
            distance[nearer], before[nearer] = through[nearer], row
            column = int(np.where(done, np.inf, distance).argmin())
            reached = distance[column]
            if row_of[column] < 0:
                break
            done[column] = True
            row = int(row_of[column])
        slack = reached - distance[done]
        row_price[row_of[done]] += slack
        row_price[start] += reached
        column_price[done] -= slack
        while True:
            row = int(before[column])
            row_of[column] = row
            column, column_of[row] = column_of[row], column
            if row == start:
                break
    return torch.from_numpy(column_of)
