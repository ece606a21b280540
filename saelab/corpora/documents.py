"""A document and the labelled character spans in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Span(NamedTuple):
    """Characters `start` to `end` (half open) of a document's text carry `label`."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text, and what is known to be true of parts of it (nothing, for text from outside)."""

    text: str
    spans: tuple[Span, ...] = ()
