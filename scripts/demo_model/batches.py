"""Rows of tokens for training and validation: a batch is a function of (seed, step), so nothing is remembered."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt16
from tokenizers import Tokenizer

from demo_model.tokenizer import END
from saelab.corpora.microworld import Microworld

_CHUNK = 20_000  # characters: long documents are encoded in pieces, so that all threads have work
# How much an IOI answer counts in the loss, from which step on. It is one token in thirty but the one that the task is
# about; it weighs more once the model has found that names are copied from the text.
IOI_WEIGHTS = ((0, 5.0), (2419, 20.0))
_DOCUMENTS_PER_ROW = 100  # microworld documents set aside for one row; a row of 257 tokens needs about 8


def read_documents(path: Path) -> list[str]:
    """The documents of a gzipped text file, which `<|endoftext|>` separates."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    return [document.strip() for document in text.split(END) if document.strip()]


def hold_out(documents: list[str]) -> tuple[list[str], list[str]]:
    """(training, validation): the last 5 % of the documents, at least one, are for validation."""
    cut = len(documents) - max(1, round(0.05 * len(documents)))
    return documents[:cut], documents[cut:]


@dataclass(frozen=True)
class Tokens:
    """A source's documents in one row of ids; each document begins with the end-of-text token, at `starts`."""

    ids: UInt16[np.ndarray, " tokens"]
    starts: Int64[np.ndarray, " documents"]


def tokenise(tokenizer: Tokenizer, documents: list[str]) -> Tokens:
    """Encode documents one after the other, an end-of-text token before each."""
    pieces = [(position, piece) for position, text in enumerate(documents) for piece in _pieces(text)]
    encoded = tokenizer.encode_batch_fast([piece for _, piece in pieces])
    end = tokenizer.token_to_id(END)
    parts, starts, length, previous = [], [], 0, -1
    for (document, _), encoding in zip(pieces, encoded, strict=True):
        if document != previous:
            parts.append(np.array([end], dtype=np.uint16))
            starts.append(length)
            length, previous = length + 1, document
        parts.append(np.array(encoding.ids, dtype=np.uint16))
        length += len(encoding.ids)
    return Tokens(np.concatenate(parts), np.array(starts))


def _pieces(text: str) -> list[str]:
    """Cut after line ends (where the tokenizer cuts anyway), about every `_CHUNK` characters."""
    pieces, start = [], 0
    while len(text) - start > _CHUNK and (end := text.find("\n", start + _CHUNK)) != -1:
        pieces.append(text[start : end + 1])
        start = end + 1
    return [*pieces, text[start:]]


@dataclass(frozen=True)
class Batches:
    """Training rows of `width` ids: a fixed number of rows of each source per batch.

    `rows` says how many rows come from "stories", "novels" and "microworld". A row from a file starts at a document's
    beginning in half of the cases; elsewhere it starts anywhere, every second time with its first id replaced by
    end-of-text, so that a text that starts in the middle is familiar with and without it. A microworld row is fresh
    documents from their start.
    """

    tokenizer: Tokenizer
    files: Mapping[str, Tokens]
    rows: Mapping[str, int]
    width: int
    seed: int

    def batch(self, step: int) -> tuple[Int64[np.ndarray, "rows width"], Float32[np.ndarray, "rows width"]]:
        """The rows of one step, and how much predicting each of their ids counts in the loss."""
        rng = np.random.default_rng([self.seed, step])
        rows, weights = [], []
        for source, count in self.rows.items():
            if source == "microworld":
                first = step * count * _DOCUMENTS_PER_ROW
                made = microworld_rows(self.tokenizer, Microworld(self.seed), first, count, self.width)
                rows += [ids for ids, _ in made]
                weights += [np.where(is_answer, _ioi_weight(step), 1.0).astype(np.float32) for _, is_answer in made]
            else:
                rows += [self._file_row(self.files[source], rng) for _ in range(count)]
                weights += [np.ones(self.width, dtype=np.float32)] * count
        return np.stack(rows).astype(np.int64), np.stack(weights)

    def _file_row(self, tokens: Tokens, rng: np.random.Generator) -> np.ndarray:
        start = int(rng.integers(len(tokens.ids) - self.width + 1))
        style = rng.integers(4)
        if style < 2:
            before = int(np.searchsorted(tokens.starts, start, side="right")) - 1
            start = min(int(tokens.starts[before]), len(tokens.ids) - self.width)
        row = tokens.ids[start : start + self.width].copy()
        if style == 2:
            row[0] = self.tokenizer.token_to_id(END)
        return row


def _ioi_weight(step: int) -> float:
    return max((since, weight) for since, weight in IOI_WEIGHTS if since <= step)[1]


def microworld_rows(
    tokenizer: Tokenizer, microworld: Microworld, first: int, count: int, width: int
) -> list[tuple[UInt16[np.ndarray, " width"], Bool[np.ndarray, " width"]]]:
    """`count` rows of whole documents from the `first` on (a row's last one is cut off); which ids are IOI answers."""
    end = tokenizer.token_to_id(END)
    rows = []
    for row in range(count):
        ids: list[int] = []
        answers: list[int] = []
        index = first + row * _DOCUMENTS_PER_ROW
        while len(ids) < width:
            document = microworld.document(index)
            encoding = tokenizer.encode(document.text)
            for span in document.spans:
                if span.label == "ioi_answer":
                    token = encoding.char_to_token(span.start)
                    assert token is not None, "every character belongs to a token"
                    answers.append(len(ids) + 1 + token)
            ids += [end, *encoding.ids]
            index += 1
        is_answer = np.zeros(len(ids), dtype=bool)
        is_answer[answers] = True
        rows.append((np.array(ids[:width], dtype=np.uint16), is_answer[:width]))
    return rows


def validation_rows(tokens: Tokens, count: int, width: int) -> Int64[np.ndarray, "count width"]:
    """Evenly spaced rows of a held-out source."""
    starts = np.linspace(0, len(tokens.ids) - width, count).astype(np.int64)
    return np.stack([tokens.ids[start : start + width] for start in starts]).astype(np.int64)
