"""What the evidence benchmarks say their findings with: mean ± spread, markdown tables, verdicts on claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from saelab.evaluation.printing import markdown_rows

# 97.5 % quantile of Student's t for 1, 2, … degrees of freedom; beyond the table the normal's is near enough.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.96

Verdict = Literal["holds", "does not hold", "undecided", "no difference"]


@dataclass(frozen=True)
class Column:
    """A column of a table: what a row's number is called and how it is written."""

    title: str
    name: str
    digits: int = 3
    factor: float = 1.0
    """100 for shares that are written in percent."""


def spread(values: Sequence[float | None], digits: int = 3, factor: float = 1.0) -> str:
    """`mean ± standard deviation` of one number a seed; numbers that are undefined (None) are left out."""
    known = [value * factor for value in values if value is not None]
    if not known:
        return "–"
    about = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{about}"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns line up in plain text too; the first is flush left, the others right."""
    return markdown_rows(titles, rows)


@dataclass(frozen=True)
class Difference:
    """A mean difference between pairs (same seed, same other settings) and its 95 % interval."""

    mean: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
        """Of `ours - theirs`, pair by pair: Student's t over the pairs.

        It takes pairs for independent; those that share a seed are not quite.
        """
        differences = [a - b for a, b in zip(ours, theirs, strict=True)]
        middle = mean(differences)
        if len(differences) < 2:
            return cls(middle, -math.inf, math.inf, len(differences))
        freedom = len(differences) - 1
        t = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL
        half = t * stdev(differences) / len(differences) ** 0.5
        return cls(middle, middle - half, middle + half, len(differences))

    def verdict(self) -> Verdict:
        """On the claim that ours is lower: the interval lies below 0, above it, or around it."""
        if self.low == self.high == 0:
            return "no difference"
        if self.high < 0:
            return "holds"
        return "does not hold" if self.low > 0 else "undecided"

    def text(self, digits: int = 3) -> str:
        """`-0.012 [-0.015, -0.009], 9 pairs`"""
        if not math.isfinite(self.low):
            return f"{self.mean:+.{digits}f} (1 pair)"
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}], {self.pairs} pairs"


def paired(ours: dict[tuple, float], theirs: dict[tuple, float]) -> Difference | None:
    """The difference over the pairs that both have; None without any."""
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    return Difference.of([ours[key] for key in common], [theirs[key] for key in common])
