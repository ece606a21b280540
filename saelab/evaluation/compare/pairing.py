"""Paired differences over documents: bootstrap intervals, permutation p-values, and their correction for many tests.

Two dictionaries that were measured on the same text share what is easy and what is hard in it. Drawing the same
documents for both, or swapping the two document by document, leaves that out of the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.bootstrap import LEVEL, Numbers, draws, in_parts
from saelab.progress import track

_TIE = 1e-9  # relative: permutations that swap nothing, or everything, must count as being as large as what was found

Table = Float[Tensor, "documents columns"]
FromSums = Callable[[Mapping[str, Tensor]], Numbers]
"""From column sums to named numbers, at any leading shape."""


class Difference(NamedTuple):
    """A number of one dictionary minus that of another; None where there were too few documents or it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None


class Pairing:
    """Tables of per-document sums, on the same documents in the same order.

    Args:
        tables: by name; a mean or a mixture of dictionaries is a table too.
        columns: names of the columns of all tables.
    """

    def __init__(
        self, tables: Mapping[str, Table], columns: Sequence[str], numbers: FromSums, resamples: int, seed: int
    ) -> None:
        self.tables, self.columns, self.numbers = dict(tables), tuple(columns), numbers
        self.resamples, self.seed = resamples, seed

    def differences(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Difference]]:
        """`numbers(first) - numbers(second)` of each pair.

        The interval is the central 95 % over samples of documents (paired percentile bootstrap). p is two-sided: the
        share of random swaps of the two dictionaries, document by document, whose difference is at least as large as
        what was found, which is counted among them (Phipson and Smyth 2010).
        """
        if not pairs:
            return []
        found = [self._minus(self.tables[a].sum(0), self.tables[b].sum(0)) for a, b in pairs]
        if len(self.tables[pairs[0][0]]) < 2:
            return [{name: Difference(_known(v), None, None, None) for name, v in of.items()} for of in found]
        with track(2 * self.resamples, "compare", "resamples") as bar:
            drawn = self._bootstrap(pairs, bar.advance)
            extreme = self._permutations(pairs, found, bar.advance)
        ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
        results: list[dict[str, Difference]] = []
        for values, samples, counts in zip(found, drawn, extreme, strict=True):
            of: dict[str, Difference] = {}
            for name, value in values.items():
                low, high = torch.quantile(samples[name], ends)
                known = bool(value.isfinite())
                p = (counts[name] + 1) / (self.resamples + 1) if known else None
                of[name] = Difference(_known(value), _known(low), _known(high), p)
            results.append(of)
        return results

    def _bootstrap(self, pairs: Sequence[tuple[str, str]], advance: Callable[[int], None]) -> list[Numbers]:
        names = list(dict.fromkeys(name for pair in pairs for name in pair))
        side_by_side = torch.cat([self.tables[name] for name in names], dim=1)
        parts: list[list[Numbers]] = []
        for weights in draws(len(side_by_side), self.resamples, self.seed):
            totals = dict(zip(names, (weights @ side_by_side).split(len(self.columns), dim=1), strict=True))
            parts.append([self._minus(totals[a], totals[b]) for a, b in pairs])
            advance(len(weights))
        return [{name: torch.cat([part[i][name] for part in parts]) for name in parts[0][i]} for i in range(len(pairs))]

    def _permutations(
        self, pairs: Sequence[tuple[str, str]], found: Sequence[Numbers], advance: Callable[[int], None]
    ) -> list[dict[str, int]]:
        """For each pair and number, how many permutations reach what was found."""
        apart = torch.cat([self.tables[a] - self.tables[b] for a, b in pairs], dim=1)
        generator = torch.Generator().manual_seed(self.seed)
        counts = [dict.fromkeys(of, 0) for of in found]
        for some in in_parts(len(apart), self.resamples):
            kept = torch.randint(2, (some, len(apart)), generator=generator, dtype=torch.int8).double()
            moved = (kept @ apart).split(len(self.columns), dim=1)
            for (a, b), shift, of, count in zip(pairs, moved, found, counts, strict=True):
                ours, theirs = self.tables[b].sum(0) + shift, self.tables[a].sum(0) - shift
                for name, values in self._minus(ours, theirs).items():
                    count[name] += int((values.abs() >= of[name].abs() * (1 - _TIE)).sum())
            advance(some)
        return counts

    def _minus(self, ours: Float[Tensor, "*n columns"], theirs: Float[Tensor, "*n columns"]) -> Numbers:
        first, second = (self.numbers(dict(zip(self.columns, t.unbind(-1), strict=True))) for t in (ours, theirs))
        return {name: first[name] - second[name] for name in first}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that the chance of any false finding among all stays below the level (Holm 1979)."""
    corrected, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = worst
    return corrected


def _known(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None
