"""Bootstrap intervals: draw documents with replacement, recompute every number from the drawn sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.sums import DocumentSums

LEVEL = 0.95
_WEIGHTS_AT_ONCE = 2**22  # numbers in the table of draws that is held at a time (32 MB)

Numbers = dict[str, Tensor]


def resampled(sums: DocumentSums, resamples: int, seed: int) -> dict[str, Float[Tensor, "resamples"]]:
    """Column sums of `resamples` samples, each of as many documents as there are, drawn with replacement."""
    table = sums.table()
    totals = torch.cat([weights @ table for weights in draws(len(table), resamples, seed)])
    return dict(zip(sums.columns, totals.unbind(1), strict=True))


def draws(n: int, resamples: int, seed: int) -> Iterator[Float[Tensor, "some n"]]:
    """How often each of `n` documents is drawn in each sample, a bounded number of samples at a time."""
    generator = torch.Generator().manual_seed(seed)
    for some in in_parts(n, resamples):
        drawn = torch.randint(max(n, 1), (some, n), generator=generator)
        yield torch.zeros(some, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


def in_parts(n: int, resamples: int) -> Iterator[int]:
    """Sizes that add up to `resamples`: samples of `n` documents that fit in memory together."""
    left = resamples
    while left > 0:
        some = min(left, max(1, _WEIGHTS_AT_ONCE // max(n, 1)))
        yield some
        left -= some


def intervals(
    sums: DocumentSums, numbers: Callable[[Mapping[str, Tensor]], Numbers], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The central 95 % of each number over bootstrap samples of the documents (percentile bootstrap).

    Args:
        numbers: from column sums to named numbers; must work on any leading shape, as it gets all samples at once.

    Returns:
        name → (low, high). A single document, or a number that is undefined in some sample, has no interval (NaN).
    """
    if sums.n_documents < 2:
        return {name: (float("nan"), float("nan")) for name in numbers(sums.total())}
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    drawn = numbers(resampled(sums, resamples, seed))
    bounds = {name: torch.quantile(values, ends).tolist() for name, values in drawn.items()}
    return {name: (low, high) for name, (low, high) in bounds.items()}
