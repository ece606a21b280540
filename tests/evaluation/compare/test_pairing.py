"""Paired differences: by hand, and what must hold of them whatever the numbers."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saelab.evaluation.compare.pairing import Pairing, holm

COLUMNS = ("above", "below")


def ratio(sums) -> dict[str, Tensor]:
    return {"ratio": torch.where(sums["below"] == 0, torch.nan, sums["above"] / sums["below"])}


def pairing(resamples: int = 2000, seed: int = 0, **tables: list[list[float]]) -> Pairing:
    made = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in tables.items()}
    return Pairing(made, COLUMNS, ratio, resamples, seed)


def test_a_difference_by_hand() -> None:
    # a: (1 + 3) / (2 + 2) = 1; b: (1 + 1) / 4 = 0.5.
    ours, theirs = [[1.0, 2.0], [3.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]]
    found = pairing(a=ours, b=theirs).differences([("a", "b")])[0]["ratio"]
    assert found.value == 0.5
    # Two documents: the sample is one of them twice (differences 0 and 1) or both (0.5).
    assert (found.low, found.high) == (0.0, 1.0)
    # The first document is the same in both: swapping it changes nothing, swapping the second turns the sign. All
    # permutations reach |0.5|.
    assert found.p == 1.0


def test_p_is_the_share_of_swaps_that_reach_what_was_found() -> None:
    ours, theirs = [[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]], [[0.0, 1.0]] * 3
    swaps = [abs(sum(sign * value for sign, value in zip(signs, (1, 2, 4), strict=True)))
             for signs in product((1, -1), repeat=3)]  # fmt: skip
    exact = sum(swap >= 7 for swap in swaps) / len(swaps)
    found = pairing(a=ours, b=theirs, resamples=20_000).differences([("a", "b")])[0]["ratio"]
    assert found.value == pytest.approx(7 / 3)
    assert found.p == pytest.approx(exact, abs=0.01)


def test_the_interval_is_that_of_pairs_not_of_two_samples() -> None:
    # The documents differ a lot, the dictionaries by exactly 0.1 in each.
    theirs = [[float(i), 1.0] for i in range(40)]
    ours = [[above + 0.1, below] for above, below in theirs]
    found = pairing(a=ours, b=theirs).differences([("a", "b")])[0]["ratio"]
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found.p == pytest.approx(1 / 2001, abs=1e-3)


rows = st.lists(st.tuples(st.floats(-10, 10), st.floats(0.5, 5)), min_size=2, max_size=12)


@settings(max_examples=25)
@given(rows, st.integers(0, 100))
def test_what_is_the_same_does_not_differ(table: list[tuple[float, float]], seed: int) -> None:
    found = pairing(a=list(map(list, table)), b=list(map(list, table)), resamples=50, seed=seed)
    difference = found.differences([("a", "b")])[0]["ratio"]
    assert difference == (0.0, 0.0, 0.0, 1.0)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.floats(0.5, 5)), min_size=2, max_size=12))
def test_swapping_the_two_turns_the_sign(table: list[tuple[float, float, float]]) -> None:
    ours, theirs = [[a, n] for a, _, n in table], [[b, n] for _, b, n in table]
    one, other = pairing(a=ours, b=theirs, resamples=50).differences([("a", "b"), ("b", "a")])
    assert other["ratio"].p == one["ratio"].p
    assert other["ratio"].value == -(one["ratio"].value or 0.0)
    assert other["ratio"].low == pytest.approx(-(one["ratio"].high or 0.0), abs=1e-12)


def test_chance_alone_is_found_significant_as_often_as_it_should() -> None:
    generator = torch.Generator().manual_seed(5)
    false = 0
    for seed in range(200):
        above = torch.randn(30, 2, generator=generator, dtype=torch.float64)
        below = torch.ones(30, 1, dtype=torch.float64)
        tables = {name: torch.cat([above[:, i : i + 1], below], 1) for i, name in enumerate("ab")}
        found = Pairing(tables, COLUMNS, ratio, 200, seed).differences([("a", "b")])[0]["ratio"]
        false += (found.p or 1.0) < 0.05
    assert 2 <= false <= 20  # of 200 at a level of 5 %: 10 expected, standard deviation 3


def test_one_document_has_no_interval() -> None:
    found = pairing(a=[[1.0, 1.0]], b=[[3.0, 1.0]]).differences([("a", "b")])[0]["ratio"]
    assert found == (-2.0, None, None, None)


def test_what_is_undefined_stays_undefined() -> None:
    found = pairing(a=[[1.0, 0.0], [1.0, 0.0]], b=[[3.0, 1.0], [3.0, 1.0]]).differences([("a", "b")])[0]["ratio"]
    assert found == (None, None, None, None)


def test_no_pair_costs_nothing() -> None:
    assert pairing(a=[[1.0, 1.0]]).differences([]) == []


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1, never below the one before.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.7, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
