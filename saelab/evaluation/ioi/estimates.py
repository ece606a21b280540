"""Numbers that are ratios of sums over prompts, with bootstrap intervals over the prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Num
from torch import Tensor

from saelab.evaluation.bootstrap import intervals
from saelab.evaluation.sums import DocumentSums

RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number and where it lies in 95 % of bootstrap samples of the prompts; NaN where it is undefined."""

    value: float
    low: float
    high: float


def estimates(
    columns: Mapping[str, Num[Tensor, "n"]],
    numbers: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Numbers made from column sums; all are drawn from the same bootstrap samples.

    Args:
        columns: one value a prompt.
        numbers: from column sums to named numbers; must work on any leading shape.
    """
    sums = DocumentSums(list(columns))
    n = len(next(iter(columns.values())))
    sums.add(torch.arange(n), columns)
    values, ends = numbers(sums.total()), intervals(sums, numbers, resamples, seed)
    return {name: Estimate(float(value), *ends[name]) for name, value in values.items()}


def means(columns: Mapping[str, Num[Tensor, "n"]], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Estimate]:
    """The mean over prompts of each column (a share where the column is true or false)."""
    n = len(next(iter(columns.values())))
    return estimates(columns, lambda sums: {name: total / n for name, total in sums.items()}, resamples, seed)
