"""Work in groups, against plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.features.grouping import best_of_distinct, descending, rank_in_group, scrambled, sum_equal

ENTRIES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2**32 - 1)), max_size=40)


def picked(entries: list[tuple[int, int, int]], count: int) -> list[int]:
    groups, members, order = (np.array(column, np.int64) for column in zip(*entries, strict=True))
    return best_of_distinct(groups, members, order.astype(np.uint32), count).tolist()


def expected(entries: list[tuple[int, int, int]], count: int) -> list[int]:
    chosen: list[int] = []
    taken: dict[int, set[int]] = {}
    for index in sorted(range(len(entries)), key=lambda i: (entries[i][0], entries[i][2], i)):
        group, member, _ = entries[index]
        if member not in taken.setdefault(group, set()) and len(taken[group]) < count:
            taken[group].add(member)
            chosen.append(index)
    return chosen


@given(entries=ENTRIES.filter(bool), count=st.integers(1, 4))
@settings(deadline=None)
def test_best_of_distinct_takes_each_member_once(entries: list[tuple[int, int, int]], count: int) -> None:
    assert picked(entries, count) == expected(entries, count)


@given(one=ENTRIES.filter(bool), two=ENTRIES.filter(bool), count=st.integers(1, 4))
@settings(deadline=None)
def test_picking_from_two_picks_is_picking_from_all(
    one: list[tuple[int, int, int]], two: list[tuple[int, int, int]], count: int
) -> None:
    parts = [one[i] for i in picked(one, count)] + [two[i] for i in picked(two, count)]
    everything = one + two
    assert [parts[i] for i in picked(parts, count)] == [everything[i] for i in picked(everything, count)]


def test_rank_in_group() -> None:
    assert rank_in_group(np.array([4, 4, 4, 7, 2, 2])).tolist() == [0, 1, 2, 0, 0, 1]
    assert rank_in_group(np.array([], np.int64)).tolist() == []


def test_sum_equal() -> None:
    keys, sums = sum_equal(np.array([5, 3, 5]), np.array([1.0, 2.0, 0.5]))
    assert (keys.tolist(), sums.tolist()) == ([3, 5], [2.0, 1.5])


@given(st.lists(st.floats(2.0**-100, 2.0**100, width=32), min_size=2))
@settings(deadline=None)
def test_descending_keys_sort_floats_from_the_largest(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert array[np.argsort(descending(array))].tolist() == sorted(array.tolist(), reverse=True)


def test_scrambled_keys_depend_on_number_and_seed_and_spread_evenly() -> None:
    numbers = np.arange(40_000)
    keys = scrambled(numbers, 0)
    assert (keys == scrambled(numbers[::-1], 0)[::-1]).all()
    assert (keys != scrambled(numbers, 1)).mean() > 0.999
    counts = np.bincount(keys >> 28)
    # 16 bins of 2,500 expected: five standard deviations are 245
    assert abs(counts - 2_500).max() < 245
