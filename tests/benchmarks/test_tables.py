"""Mean ± spread, intervals and verdicts of the evidence, by hand."""

import math

import pytest

from benchmarks.tables import Difference, markdown, paired, spread


def test_spread_is_mean_and_sample_deviation() -> None:
    assert spread([1.0, 2.0, 3.0], digits=2) == "2.00 ± 1.00"
    assert spread([0.5, None], digits=0, factor=100) == "50"
    assert spread([None]) == "–"


def test_columns_line_up() -> None:
    lines = markdown(["", "x"], [["long name", "1"], ["b", "22.5"]]).splitlines()
    assert lines == ["|           |    x |", "| --------- | ---: |", "| long name |    1 |", "| b         | 22.5 |"]


def test_the_interval_is_students() -> None:
    # Differences -1, -2, -3: mean -2, deviation 1, t of two degrees of freedom 4.303.
    difference = Difference.of([1, 2, 3], [2, 4, 6])
    assert difference.mean == -2
    assert (difference.low, difference.high) == pytest.approx((-2 - 4.303 / 3**0.5, -2 + 4.303 / 3**0.5))
    assert difference.verdict() == "undecided"
    assert difference.text(2) == "-2.00 [-4.48, +0.48], 3 pairs"


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [([1.0, 1.1], "holds"), ([9.0, 9.1], "does not hold"), ([5.0, 5.0], "no difference"), ([4.0, 6.0], "undecided")],
)
def test_verdicts_on_being_lower_than_five(ours: list[float], verdict: str) -> None:
    assert Difference.of(ours, [5.0, 5.0]).verdict() == verdict


def test_one_pair_decides_nothing() -> None:
    difference = Difference.of([1.0], [5.0])
    assert (difference.low, difference.high) == (-math.inf, math.inf)
    assert difference.verdict() == "undecided"
    assert difference.text(1) == "-4.0 (1 pair)"


def test_only_what_both_have_is_paired() -> None:
    difference = paired({("a",): 1.0, ("b",): 2.0, ("c",): 9.0}, {("b",): 5.0, ("a",): 2.0})
    assert difference is not None
    assert (difference.mean, difference.pairs) == (-2.0, 2)
    assert paired({("a",): 1.0}, {("b",): 1.0}) is None
