"""From labels on characters to labels on tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from saelab.corpora.documents import Document
from saelab.corpora.microworld.labels import LABELS

LABEL_NAMES = tuple(LABELS)
_COLUMN = {label: column for column, label in enumerate(LABEL_NAMES)}


def token_labels(document: Document, offsets: Sequence[tuple[int, int]]) -> Bool[np.ndarray, "tokens labels"]:
    """Which token carries which label (columns in the order of LABELS).

    `offsets` are the tokens' half-open character ranges in the text, in order, as Hugging Face tokenizers return them.
    A token has a label when one of the label's spans overlaps its non-space characters, so a token of spaces alone, or
    of no characters (a special token), has none.
    """
    trimmed = [_trim(document.text, start, end) for start, end in offsets]
    starts = np.array([start for start, _ in trimmed], dtype=np.int64)
    ends = np.array([end for _, end in trimmed], dtype=np.int64)
    if len(trimmed) == 0 or not document.spans:
        return np.zeros((len(trimmed), len(LABEL_NAMES)), dtype=bool)
    span_starts = np.array([span.start for span in document.spans])
    span_ends = np.array([span.end for span in document.spans])
    columns = np.array([_COLUMN[span.label] for span in document.spans])
    first = np.searchsorted(ends, span_starts, side="right")  # the first token that ends after the span's start
    stop = np.searchsorted(starts, span_ends, side="left")  # the first token that starts at or after its end
    touching = first < stop
    steps = np.zeros((len(trimmed) + 1, len(LABEL_NAMES)), dtype=np.int32)
    np.add.at(steps, (first[touching], columns[touching]), 1)
    np.add.at(steps, (stop[touching], columns[touching]), -1)
    return (steps.cumsum(axis=0)[:-1] > 0) & (starts < ends)[:, None]


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without spaces at either end; an empty one keeps its start, so that ranges stay in order."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
