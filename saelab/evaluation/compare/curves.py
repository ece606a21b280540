"""Architectures as curves over L0, and one curve read off at the L0 of another.

Between two dictionaries of a curve a number is taken to be linear in log L0. The numbers that are compared are ratios
of sums with the same denominators, so the reading is that of a mixture of the two tables of sums, and is paired with
other dictionaries, document by document, as any table is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

TOLERANCE: Final = 0.05
"""Relative difference of L0 beyond which two dictionaries are not at the same L0."""


class Knot(NamedTuple):
    """A dictionary, or the mean of seeds, on its curve."""

    name: str
    l0: float


@dataclass(frozen=True)
class Curve:
    """Dictionaries that are alike but for how many latents they keep, from the sparsest on."""

    name: str
    knots: tuple[Knot, ...]

    @classmethod
    def of(cls, name: str, knots: Sequence[Knot]) -> Curve:
        return cls(name, tuple(sorted(knots, key=lambda knot: knot.l0)))

    def at(self, l0: float) -> Reading | None:
        """How the curve is read at `l0`: between two knots, or at its end if that is within 5 %; None beyond."""
        for left, right in zip(self.knots, self.knots[1:], strict=False):
            if left.l0 <= l0 <= right.l0:
                if left.l0 == right.l0:
                    return Reading(left, left, 0.0, l0)
                share = math.log(l0 / left.l0) / math.log(right.l0 / left.l0)
                return Reading(left, right, share, l0)
        nearest = min(self.knots, key=lambda knot: abs(math.log(knot.l0 / l0)))
        return Reading(nearest, nearest, 0.0, nearest.l0) if is_same(nearest.l0, l0) else None


class Reading(NamedTuple):
    """A curve at one L0: (1 - share) of `left` and share of `right`."""

    left: Knot
    right: Knot
    share: float
    l0: float
    """Where it was read: what was asked for, or the end of the curve beside it."""


@dataclass(frozen=True)
class Match:
    """Two curves at the same L0: a knot of one, and the other read off there."""

    ours: Reading
    theirs: Reading
    """Of the baseline."""


def matches(ours: Curve, baseline: Curve) -> Iterator[Match]:
    """Both curves at every L0 where one has a knot and the other can be read; twice at no L0.

    The baseline's knots come first; of ours, those that are not within 5 % of one of them.
    """
    taken: list[float] = []
    for knot in baseline.knots:
        reading = ours.at(knot.l0)
        if reading is not None:
            taken.append(knot.l0)
            yield Match(reading, Reading(knot, knot, 0.0, knot.l0))
    for knot in ours.knots:
        reading = baseline.at(knot.l0)
        if reading is not None and not any(is_same(knot.l0, l0) for l0 in taken):
            yield Match(Reading(knot, knot, 0.0, knot.l0), reading)


def is_same(a: float, b: float) -> bool:
    """Whether two L0 count as the same: within 5 % of the second."""
    return abs(a - b) <= TOLERANCE * b
