"""Sorting more than fits in memory: sorted runs in flat files, merged piece by piece.

`SortedRuns` collects (major, minor) → value entries in a buffer of fixed size. A full buffer is sorted and appended to
the files as one run; `pieces` merges the runs back in sorted order, never holding more than a fixed number of entries.
Nothing else here or in the index grows with the number of tokens, except files that are read through the page cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import DTypeLike, NDArray

MINOR_BITS = 40  # an entry's sort key is major << 40 | minor: 2^23 latents × 2^40 tokens


class Column:
    """A growing array in a flat file: appended to, then read as a memory map."""

    def __init__(self, path: Path, dtype: DTypeLike, width: int | None = None) -> None:
        """Open (or create) `path`; with `width` the array is [n, width], without it [n]."""
        self.path, self.dtype, self.width = path, np.dtype(dtype), width
        self._row_bytes = self.dtype.itemsize * (1 if width is None else width)
        path.touch()

    def __len__(self) -> int:
        return self.path.stat().st_size // self._row_bytes

    def append(self, rows: NDArray) -> None:
        with open(self.path, "ab") as file:
            np.ascontiguousarray(rows, dtype=self.dtype).tofile(file)

    def truncate(self, length: int) -> None:
        """Drop everything after the first `length` rows (what a stopped run wrote after its last mark)."""
        with open(self.path, "r+b") as file:
            file.truncate(length * self._row_bytes)

    def read(self) -> NDArray:
        shape = (len(self),) if self.width is None else (len(self), self.width)
        return np.memmap(self.path, self.dtype, "r", shape=shape) if len(self) else np.empty(shape, self.dtype)


@dataclass(frozen=True)
class Piece:
    """Consecutive entries of the merged order: majors `first` to `last` (half open).

    `final` is False where a single major has too many entries for one piece and more of it follows.
    """

    first: int
    last: int
    final: bool
    keys: Int64[np.ndarray, "n"]
    values: Float32[np.ndarray, "n"]

    @property
    def major(self) -> Int64[np.ndarray, "n"]:
        return self.keys >> MINOR_BITS

    @property
    def minor(self) -> Int64[np.ndarray, "n"]:
        return self.keys & ((1 << MINOR_BITS) - 1)


class SortedRuns:
    """Entries (major, minor) → value, sorted on disk with bounded memory.

    Args:
        folder: where the runs lie; an existing folder's runs are kept (`truncate` to a known number of them).
        n_major: majors are 0 … n_major - 1.
        capacity: entries held in memory, both while collecting and while merging.
        total: add up the values of equal keys (inside a run; `pieces` leaves those of different runs side by side).
    """

    def __init__(self, folder: Path, n_major: int, capacity: int, total: bool = False) -> None:
        if n_major > 1 << (63 - MINOR_BITS):
            raise ValueError(f"{n_major} majors don't fit beside {MINOR_BITS} bits of minor")
        folder.mkdir(parents=True, exist_ok=True)
        self.n_major, self.capacity, self.total = n_major, capacity, total
        self._keys, self._values = Column(folder / "keys.bin", np.int64), Column(folder / "values.bin", np.float32)
        # Per run: where each major begins in the files (and where the run ends), and each major's largest value.
        self._bounds = Column(folder / "bounds.bin", np.int64, n_major + 1)
        self._peaks = Column(folder / "peaks.bin", np.float32, n_major)
        self._buffer_keys, self._buffer_values = np.empty(capacity, np.int64), np.empty(capacity, np.float32)
        self._buffered = 0
        self.most_held = 0  # the largest number of entries that was ever in memory

    @property
    def n_runs(self) -> int:
        return len(self._bounds)

    @property
    def nearly_full(self) -> bool:
        """Whether the buffer is more than half full: a good moment to flush."""
        return self._buffered > self.capacity // 2

    def append(
        self, major: Int64[np.ndarray, "n"], minor: Int64[np.ndarray, "n"], values: Float32[np.ndarray, "n"]
    ) -> None:
        """Collect entries; full buffers go to disk on the way."""
        keys = (major << MINOR_BITS) | minor
        while len(keys):
            room = min(self.capacity - self._buffered, len(keys))
            here = slice(self._buffered, self._buffered + room)
            self._buffer_keys[here], self._buffer_values[here] = keys[:room], values[:room]
            self._buffered += room
            self._hold(self._buffered)
            if self._buffered == self.capacity:
                self.flush()
            keys, values = keys[room:], values[room:]

    def flush(self) -> None:
        """Sort what is buffered and write it as one run; an empty buffer writes nothing."""
        if not self._buffered:
            return
        keys, values = _sorted(self._buffer_keys[: self._buffered], self._buffer_values[: self._buffered])
        if self.total:
            starts = np.flatnonzero(np.diff(keys, prepend=-1))
            keys, values = keys[starts], np.add.reduceat(values, starts)
        bounds = np.searchsorted(keys, np.arange(self.n_major + 1, dtype=np.int64) << MINOR_BITS)
        peaks = np.zeros(self.n_major, np.float32)
        present = np.flatnonzero(np.diff(bounds))
        peaks[present] = np.maximum.reduceat(values, bounds[present])
        offset = len(self._keys)
        self._keys.append(keys)
        self._values.append(values)
        self._peaks.append(peaks)
        self._bounds.append(bounds + offset)
        self._buffered = 0

    def truncate(self, n_runs: int) -> None:
        """Keep the first `n_runs` runs."""
        entries = int(self._bounds.read()[n_runs - 1, -1]) if n_runs else 0
        for column in (self._keys, self._values):
            column.truncate(entries)
        for column in (self._bounds, self._peaks):
            column.truncate(n_runs)

    def counts(self) -> Int64[np.ndarray, "n_major"]:
        """Entries of each major in the runs on disk."""
        counts = np.zeros(self.n_major, np.int64)
        for bounds in self._bounds.read():
            counts += np.diff(bounds)
        return counts

    def peaks(self) -> Float32[np.ndarray, "n_major"]:
        """The largest value of each major in the runs on disk; 0 where it has none."""
        peaks = np.zeros(self.n_major, np.float32)
        for run in self._peaks.read():
            np.maximum(peaks, run, out=peaks)
        return peaks

    def runs(self) -> list[tuple[NDArray, NDArray]]:
        """(keys, values) of each run on disk: sorted memory maps."""
        keys, values, bounds = self._keys.read(), self._values.read(), self._bounds.read()
        return [(keys[begin:end], values[begin:end]) for begin, end in bounds[:, [0, -1]]]

    def slices(self, major: int) -> list[tuple[NDArray, NDArray]]:
        """One major's (keys, values) in each run: sorted memory maps, to look entries up without reading them all."""
        keys, values, bounds = self._keys.read(), self._values.read(), self._bounds.read()
        return [
            (keys[begin:end], values[begin:end])
            for begin, end in zip(bounds[:, major], bounds[:, major + 1], strict=True)
            if end > begin
        ]

    def pieces(self) -> Iterator[Piece]:
        """All entries in sorted order (equal keys in the order of their runs); covers every major, present or not.

        A piece has at most `capacity` entries; a major with more is given in several, split between runs.
        """
        self.flush()
        keys, values, bounds = self._keys.read(), self._values.read(), self._bounds.read()
        for first, last in _ranges(self.counts(), self.capacity):
            begins, ends = bounds[:, first], bounds[:, last]
            groups = _ranges(ends - begins, self.capacity)
            for number, (low, high) in enumerate(groups):
                runs = [slice(b, e) for b, e in zip(begins[low:high], ends[low:high], strict=True) if e > b]
                parts = [keys[run] for run in runs] or [keys[:0]]
                weights = [values[run] for run in runs] or [values[:0]]
                merged = _sorted(np.concatenate(parts), np.concatenate(weights))
                self._hold(len(merged[0]))
                yield Piece(first, last, number == len(groups) - 1, *merged)

    def _hold(self, entries: int) -> None:
        self.most_held = max(self.most_held, entries)


def lookup(
    slices: list[tuple[NDArray, NDArray]], major: Int64[np.ndarray, "n"], minor: Int64[np.ndarray, "n"]
) -> Float32[np.ndarray, "n"]:
    """The values at (major, minor) in sorted `slices`; 0 where there is no such entry."""
    wanted = (major << MINOR_BITS) | minor
    found = np.zeros(len(wanted), np.float32)
    for keys, values in slices:
        at = np.searchsorted(keys, wanted)
        at[at == len(keys)] = 0
        hit = keys[at] == wanted
        found[hit] = values[at[hit]]
    return found


def _sorted(keys: NDArray, values: NDArray) -> tuple[NDArray, NDArray]:
    order = np.argsort(keys, kind="stable")
    return keys[order], values[order]


def _ranges(counts: NDArray, budget: int) -> list[tuple[int, int]]:
    """Cut 0 … len(counts) into ranges whose counts sum to at most `budget`; a count above it has a range of its own."""
    if not len(counts):
        return [(0, 0)]
    ends = np.cumsum(counts)
    ranges, first, before = [], 0, 0
    while first < len(counts):
        last = max(int(np.searchsorted(ends, before + budget, side="right")), first + 1)
        ranges.append((first, last))
        first, before = last, int(ends[last - 1])
    return ranges
