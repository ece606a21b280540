"""The text around each example, with the latent's activation on every token of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.features.grouping import rank_in_group
from saelab.features.schema import QUARTERS, WINDOW_AFTER, WINDOW_BEFORE
from saelab.features.spill import lookup
from saelab.features.summaries import Examples
from saelab.features.text import TextColumns

_CHUNK = 2**15  # examples whose windows are in memory at once


class Windows(NamedTuple):
    """Windows of some examples, clipped to the text of their rows: window i owns entries `offsets[i]:offsets[i+1]`."""

    examples: Examples
    rank: NDArray  # 0 for the largest of the latent's examples of the same quantile
    offsets: NDArray
    tokens: NDArray  # token ids
    values: NDArray  # this latent's activation; 0 where it is not active
    focus: NDArray  # index of the peak in its window


def windows(
    examples: Examples, slices: list[tuple[NDArray, NDArray]], text: TextColumns, chunk: int = _CHUNK
) -> Iterator[Windows]:
    """Cut the windows, a chunk of examples at a time.

    Args:
        slices: sorted (keys, values) that hold all activations of the latents of `examples`.
    """
    ranks = rank_in_group(examples.latent * (QUARTERS + 1) + examples.quantile)
    for begin in range(0, len(examples), chunk):
        part, rank = examples[begin : begin + chunk], ranks[begin : begin + chunk]
        row_start = part.token - part.token % text.context
        first = np.maximum(part.token - WINDOW_BEFORE, row_start)
        last = np.minimum(part.token + WINDOW_AFTER + 1, row_start + text.context)
        last -= _padding(part.token, last, text)
        offsets = np.concatenate([[0], np.cumsum(last - first)])
        owner = np.repeat(np.arange(len(part)), last - first)
        token = np.arange(offsets[-1]) - offsets[owner] + first[owner]
        values = lookup(slices, part.latent[owner], token)
        yield Windows(part, rank, offsets, text.ids[token], values, part.token - first)


def _padding(token: NDArray, last: NDArray, text: TextColumns) -> NDArray:
    """How many of the positions from each token up to `last` (half open) are padding; it lies at a row's right."""
    after = token[:, None] + np.arange(WINDOW_AFTER + 1)
    inside = after < last[:, None]
    return (inside & ~text.real[np.where(inside, after, 0)]).sum(axis=1)
