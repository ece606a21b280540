"""Which latents are active on the same tokens, counted from sparse codes on a sample of the text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from saelab.features.grouping import rank_in_group, sum_equal
from saelab.features.schema import COACTIVATION
from saelab.features.spill import MINOR_BITS, SortedRuns, lookup
from saelab.features.tables import TableWriter

N_COACTIVE = 10


class PairCounts:
    """Counts of (latent, other) pairs, sorted and added up on disk; a latent's pair with itself is its own count."""

    def __init__(self, folder: Path, d_sae: int, capacity: int) -> None:
        self.runs = SortedRuns(folder, d_sae, capacity, total=True)

    def add(self, latents: Int64[np.ndarray, "nnz"], offsets: Int64[np.ndarray, "rows+1"]) -> None:
        """Count every ordered pair of latents that are active on the same token (a row of the CSR codes)."""
        limit = max(self.runs.capacity, 1)
        pairs = np.concatenate([[0], np.cumsum(np.diff(offsets) ** 2)])
        first = 0
        while first < len(offsets) - 1:  # as many rows at a time as have `limit` pairs
            last = max(int(np.searchsorted(pairs, pairs[first] + limit, side="right")) - 1, first + 1)
            one, other = _pairs(latents, offsets[first : last + 1])
            self.runs.append(one, other, np.ones(len(one), np.float32))
            first = last

    def write(self, writer: TableWriter) -> None:
        """Write each latent's most co-active latents, by the cosine of their on/off vectors over the counted tokens."""
        assert writer.table is COACTIVATION
        self.runs.flush()
        alone = self._own_counts()
        for latent, other, both in self._totals():
            cosine = both / np.sqrt(alone[latent] * alone[other])
            order = np.lexsort((other, -cosine, latent))
            rank = rank_in_group(latent[order])
            best = order[rank < N_COACTIVE]
            writer.append(
                {
                    "latent": latent[best], "rank": rank[rank < N_COACTIVE], "neighbour": other[best],
                    "n_both": both[best], "share": both[best] / alone[latent[best]], "cosine": cosine[best],
                }
            )  # fmt: skip

    def _own_counts(self) -> NDArray:
        everyone = np.arange(self.runs.n_major)
        own = np.zeros(self.runs.n_major)
        for run in self.runs.runs():
            own += lookup([run], everyone, everyone)
        return own

    def _totals(self) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
        """(latent, other, count) of distinct latents, whole latents at a time."""
        keys: list[NDArray] = []
        counts: list[NDArray] = []
        for piece in self.runs.pieces():
            key, count = sum_equal(piece.keys, piece.values)
            keys.append(key)
            counts.append(count)
            if piece.final:
                key, count = sum_equal(np.concatenate(keys), np.concatenate(counts))
                latent, other = key >> MINOR_BITS, key & ((1 << MINOR_BITS) - 1)
                apart = latent != other
                yield latent[apart], other[apart], count[apart]
                keys, counts = [], []


def _pairs(latents: NDArray, offsets: NDArray) -> tuple[NDArray, NDArray]:
    """All ordered pairs inside each row, a latent with itself included."""
    counts = np.diff(offsets)
    sizes = np.repeat(counts, counts)  # per entry, the size of its row
    one = np.repeat(np.arange(offsets[0], offsets[-1]), sizes)
    begins = np.repeat(np.repeat(offsets[:-1], counts), sizes)
    within = np.arange(len(one)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return latents[one], latents[begins + within]
