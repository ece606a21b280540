"""What is said about each latent, computed from its activations in sorted order.

A `Summary` covers consecutive latents. One latent's activations may come in several pieces: each is summarised on its
own, and `merge` gives the summary of all of them, so that memory never grows with how often a latent fires.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from saelab.features.grouping import best_of_distinct, descending, scrambled, sum_equal
from saelab.features.schema import HISTOGRAM_BINS, QUARTERS
from saelab.features.spill import Piece
from saelab.features.text import TextColumns

_BINS_PER_QUARTER = HISTOGRAM_BINS // QUARTERS
_GROUPS = QUARTERS + 1  # example groups per latent: the largest, and one per quarter
_LABEL_CHUNK = 2**18  # activations whose labels are unpacked at once


@dataclass(frozen=True)
class Sampling:
    """How many examples are kept per latent, and the seed of those that are drawn."""

    top: int
    per_quarter: int
    seed: int


@dataclass(frozen=True)
class Examples:
    """Chosen activations, `[n]` each: sorted by latent, quantile, then from the largest value down."""

    latent: NDArray
    quantile: NDArray
    token: NDArray
    document: NDArray
    value: NDArray

    def __getitem__(self, index: NDArray | slice) -> Examples:
        return Examples(
            self.latent[index], self.quantile[index], self.token[index], self.document[index], self.value[index]
        )

    def __len__(self) -> int:
        return len(self.latent)


@dataclass(frozen=True)
class Summary:
    """Latents `first` to `last` (half open), `n` of them."""

    first: int
    last: int
    total: Float[np.ndarray, "n"]  # summed activation, float64
    histogram: Int64[np.ndarray, "n bins"]  # counts in equal bins of (0, max], each closed above
    mass_keys: Int64[np.ndarray, "m"]  # latent << 32 | token id, ascending
    mass: Float[np.ndarray, "m"]  # summed activation of the latent on that token id
    examples: Examples
    label_hits: Int64[np.ndarray, "n quarters labels"]  # active tokens with the label, by quarter of (0, max]

    @property
    def n_active(self) -> Int64[np.ndarray, "n"]:
        return self.histogram.sum(axis=1)

    @property
    def n_active_by_quarter(self) -> Int64[np.ndarray, "n quarters"]:
        return self.histogram.reshape(len(self.histogram), QUARTERS, _BINS_PER_QUARTER).sum(axis=2)


def summarise(piece: Piece, peaks: NDArray, text: TextColumns, sampling: Sampling) -> Summary:
    """Summarise one piece.

    Args:
        peaks: largest activation of every latent of the dictionary (of all its activations, not this piece's).
    """
    latent, token, value = piece.major, piece.minor, piece.values
    local, n = latent - piece.first, piece.last - piece.first
    # float64, so that a value at its maximum gives exactly 1 and bins don't depend on float32 rounding
    relative = value.astype(np.float64) / peaks[latent]
    bins = np.ceil(relative * HISTOGRAM_BINS).astype(np.int64).clip(1, HISTOGRAM_BINS) - 1
    quarter = bins // _BINS_PER_QUARTER + 1
    histogram = np.bincount(local * HISTOGRAM_BINS + bins, minlength=n * HISTOGRAM_BINS).reshape(n, HISTOGRAM_BINS)
    total = np.bincount(local, weights=value, minlength=n)
    mass_keys, mass = sum_equal(latent << 32 | text.ids[token], value)
    everything = Examples(latent, quarter, token, text.documents[token], value)
    return Summary(
        piece.first, piece.last, total, histogram, mass_keys, mass,
        _choose(everything, everything, sampling), _label_hits(local * QUARTERS + quarter - 1, n, token, text),
    )  # fmt: skip


def merge(one: Summary, two: Summary, sampling: Sampling) -> Summary:
    """The summary of two pieces of the same latents."""
    keys, mass = sum_equal(np.concatenate([one.mass_keys, two.mass_keys]), np.concatenate([one.mass, two.mass]))
    both = Examples(*(np.concatenate([getattr(one.examples, f), getattr(two.examples, f)]) for f in _FIELDS))
    top = both.quantile == 0
    return Summary(
        one.first, one.last, one.total + two.total, one.histogram + two.histogram, keys, mass,
        _choose(both[top], both[~top], sampling), one.label_hits + two.label_hits,
    )  # fmt: skip


def top_tokens(summary: Summary, count: int) -> list[tuple[NDArray, NDArray]]:
    """For each latent the `count` token ids with the most of its summed activation, and their share of it."""
    latent, ids = summary.mass_keys >> 32, summary.mass_keys & 0xFFFFFFFF
    order = np.lexsort((ids, -summary.mass, latent))
    bounds = np.searchsorted(latent, np.arange(summary.first, summary.last + 1))
    tops = []
    for row, (begin, end) in enumerate(pairwise(bounds)):
        best = order[begin : min(end, begin + count)]
        tops.append((ids[best], summary.mass[best] / summary.total[row]))
    return tops


_FIELDS = ("latent", "quantile", "token", "document", "value")


def _choose(for_top: Examples, for_quarters: Examples, sampling: Sampling) -> Examples:
    """The largest activations of each latent, and a seeded draw from each quarter: one per document in each group."""
    top = best_of_distinct(
        for_top.latent * _GROUPS, for_top.document.astype(np.int64), descending(for_top.value), sampling.top
    )
    # The draw hangs on (seed, latent, token) alone, so it is the same however the work was cut into pieces.
    draw = scrambled(for_quarters.latent << 40 | for_quarters.token, sampling.seed)
    groups = for_quarters.latent * _GROUPS + for_quarters.quantile
    drawn = best_of_distinct(groups, for_quarters.document.astype(np.int64), draw, sampling.per_quarter)
    chosen = Examples(
        latent=np.concatenate([for_top.latent[top], for_quarters.latent[drawn]]),
        quantile=np.concatenate([np.zeros(len(top), np.int64), for_quarters.quantile[drawn]]),
        token=np.concatenate([for_top.token[top], for_quarters.token[drawn]]),
        document=np.concatenate([for_top.document[top], for_quarters.document[drawn]]),
        value=np.concatenate([for_top.value[top], for_quarters.value[drawn]]),
    )
    return chosen[np.lexsort((chosen.token, -chosen.value, chosen.quantile, chosen.latent))]


def _label_hits(groups: NDArray, n: int, token: NDArray, text: TextColumns) -> NDArray:
    """Count the labels of active tokens per group (latent and quarter), unpacking a chunk of them at a time."""
    hits = np.zeros((n * QUARTERS, len(text.labels)), np.int64)
    if text.labels:
        order = np.argsort(groups, kind="stable")
        for begin in range(0, len(order), _LABEL_CHUNK):
            part = order[begin : begin + _LABEL_CHUNK]
            starts = np.flatnonzero(np.diff(groups[part], prepend=-1))
            hits[groups[part][starts]] += np.add.reduceat(text.labels_at(token[part]), starts, axis=0, dtype=np.int64)
    return hits.reshape(n, QUARTERS, len(text.labels))
