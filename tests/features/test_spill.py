"""Sorting on disk, against sorting in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.features.spill import Column, SortedRuns, lookup

N_MAJOR = 6
ENTRIES = st.dictionaries(
    st.tuples(st.integers(0, N_MAJOR - 1), st.integers(0, 2**40 - 1)), st.floats(0.5, 100, width=32), max_size=60
)


def spilled(folder: Path, entries: dict[tuple[int, int], float], capacity: int) -> SortedRuns:
    """Entries sorted away in the order of the dict, a few at a time."""
    runs = SortedRuns(folder, N_MAJOR, capacity)
    items = list(entries.items())
    for begin in range(0, len(items), 7):
        part = items[begin : begin + 7]
        runs.append(
            np.array([major for (major, _), _ in part], np.int64),
            np.array([minor for (_, minor), _ in part], np.int64),
            np.array([value for _, value in part], np.float32),
        )
    return runs


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@given(entries=ENTRIES, capacity=st.integers(1, 70))
@settings(deadline=None, max_examples=60)
def test_pieces_hold_all_entries_in_order(entries: dict[tuple[int, int], float], capacity: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        pieces = list(spilled(Path(name), entries, capacity).pieces())
        found: list[tuple[int, int, float]] = []
        for piece in pieces:
            rows = list(zip(piece.major.tolist(), piece.minor.tolist(), piece.values.tolist(), strict=True))
            assert rows == sorted(rows)
            assert all(piece.first <= major < piece.last for major, _, _ in rows)
            found += rows
    assert sorted(found) == sorted((major, minor, value) for (major, minor), value in entries.items())
    assert all(len(piece.keys) <= capacity for piece in pieces)


@given(entries=ENTRIES, capacity=st.integers(1, 70))
@settings(deadline=None, max_examples=30)
def test_pieces_cover_every_major_and_close_it_once(entries: dict[tuple[int, int], float], capacity: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        closed = [(p.first, p.last) for p in spilled(Path(name), entries, capacity).pieces() if p.final]
    assert [major for first, last in closed for major in range(first, last)] == list(range(N_MAJOR))


@given(entries=ENTRIES, capacity=st.integers(1, 70))
@settings(deadline=None, max_examples=30)
def test_counts_peaks_and_lookup(entries: dict[tuple[int, int], float], capacity: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        runs = spilled(Path(name), entries, capacity)
        runs.flush()
        for major in range(N_MAJOR):
            own = {minor: value for (m, minor), value in entries.items() if m == major}
            assert runs.counts()[major] == len(own)
            assert runs.peaks()[major] == max(own.values(), default=0)
            asked = np.array([*own, 12345], np.int64)
            answer = lookup(runs.slices(major), np.full(len(asked), major), asked)
            assert answer.tolist() == [own.get(minor, 0.0) for minor in asked.tolist()]


@pytest.mark.parametrize("n", [1_000, 10_000])
def test_entries_in_memory_stay_within_the_buffer_however_many_there_are(folder: Path, n: int) -> None:
    draw = np.random.default_rng(0)
    runs = SortedRuns(folder, 50, capacity=200)
    majors = np.where(draw.random(n) < 0.5, 3, draw.integers(0, 50, n))  # one major alone exceeds the buffer
    runs.append(majors, np.arange(n), np.ones(n, np.float32))
    assert sum(len(piece.keys) for piece in runs.pieces()) == n
    assert runs.most_held == 200


def test_equal_keys_of_a_run_are_added_up_where_asked_for(folder: Path) -> None:
    runs = SortedRuns(folder, 2, capacity=10, total=True)
    runs.append(np.array([1, 0, 1]), np.array([5, 5, 5]), np.array([1, 2, 3], np.float32))
    (piece,) = runs.pieces()
    assert (piece.major.tolist(), piece.values.tolist()) == ([0, 1], [2.0, 4.0])


def test_truncating_drops_the_runs_of_an_unfinished_step(folder: Path) -> None:
    runs = SortedRuns(folder, 2, capacity=2)
    runs.append(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), np.ones(4, np.float32))
    again = SortedRuns(folder, 2, capacity=2)
    again.truncate(1)
    assert again.counts().tolist() == [1, 1]


def test_majors_that_do_not_fit_into_a_key_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="bits"):
        SortedRuns(folder, 2**23 + 1, capacity=1)


def test_a_column_is_read_as_it_was_appended(folder: Path) -> None:
    column = Column(folder / "pairs.bin", np.int32, width=2)
    assert column.read().shape == (0, 2)
    column.append(np.array([[1, 2]]))
    column.append(np.array([[3, 4], [5, 6]]))
    column.truncate(2)
    assert column.read().tolist() == [[1, 2], [3, 4]]
