"""Packing: documents, one after another, cut into rows of equal length that a model reads.

Each document is preceded by the tokenizer's separator (if it has one). The same corpus, tokenizer and policy give the
same rows, and a `Cursor` names the place between two rows, so that work can stop there and go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.corpora.sources import numbered_documents
from saelab.corpora.tokens import TokenisedDocument, bos_id, filler_id, separator_id, special_ids, tokenise
from saelab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NO_OFFSET = -1  # of a separator or BOS
PADDING = -2


@dataclass(frozen=True)
class Cursor:
    """The place in a corpus where the next row begins."""

    document: int = 0
    """Number of the document that the next row's first token belongs to."""
    token: int = 0
    """Tokens of it (its separator included) that earlier rows hold."""
    row: int = 0
    """Rows packed before."""
    epoch: int = 0
    """Times the whole corpus was read before."""

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class TokenRows:
    """Consecutive rows of tokens and where each token comes from."""

    ids: Int[Tensor, "n context"]
    """int32 token ids."""
    documents: Int[Tensor, "n context"]
    """int64 number of the document in its source; padding goes with the document before it."""
    offsets: Int[Tensor, "n context"]
    """int32 index of the token in its document's text; -1 at separators and BOS, which are no text, -2 at padding."""
    keep: Bool[Tensor, "n context"]
    """False where the policy leaves the position out of training and metrics; always at padding."""
    start: Cursor
    """Where the first of these rows begins; `start.row` is its running number."""
    next: Cursor
    """Where the row after these begins."""

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def real(self) -> Bool[Tensor, "n context"]:
        """False at padding: predicting it counts nowhere."""
        return self.offsets != PADDING

    @cached_property
    def n_kept(self) -> int:
        """Positions that take part."""
        return int(self.keep.sum())

    def first(self, n: int) -> TokenRows:
        """The first `n` rows, for work that ends with them: `next` stays the end of all."""
        return replace(
            self, ids=self.ids[:n], documents=self.documents[:n], offsets=self.offsets[:n], keep=self.keep[:n]
        )


def pack(
    corpus: CorpusConfig,
    tokenizer: PreTrainedTokenizerFast,
    policy: TokenPolicy,
    rows: int = 32,
    cursor: Cursor | None = None,
    repeat: bool = False,
) -> Iterator[TokenRows]:
    """Rows of the corpus in chunks of `rows`; only the last chunk of an epoch may be shorter.

    What does not fill a row at the end of the corpus (with `cross_documents` off: of a document) is left out, unless
    the policy pads. With `repeat` the corpus then begins again, in the same rows.

    Args:
        cursor: go on from here; the rows are those that an uninterrupted call would have given.

    Raises:
        UserError: no row can be filled, or the policy asks for a BOS token that the tokenizer does not have.
    """
    start = cursor or Cursor()
    special = special_ids(tokenizer)
    while True:
        packed = _epoch(corpus, tokenizer, policy, start)
        while chunk := list(islice(packed, rows)):
            ids = torch.from_numpy(np.stack([row.ids for row in chunk]))
            offsets = torch.from_numpy(np.stack([row.offsets for row in chunk]))
            yield TokenRows(
                ids=ids,
                documents=torch.from_numpy(np.stack([row.documents for row in chunk])),
                offsets=offsets,
                keep=keep_mask(ids, policy, special) & (offsets != PADDING),
                start=start,
                next=chunk[-1].next,
            )
            start = chunk[-1].next
        if not repeat:
            return
        start = Cursor(row=start.row, epoch=start.epoch + 1)


def keep_mask(ids: Int[Tensor, "n context"], policy: TokenPolicy, special: list[int]) -> Bool[Tensor, "n context"]:
    """Which positions of rows without padding take part under `policy`; `special` are the tokenizer's special ids."""
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[:, : policy.exclude_first] = False
    if policy.exclude_special:
        keep &= ~torch.isin(ids, torch.tensor(special, dtype=ids.dtype, device=ids.device))
    return keep


class _Row(NamedTuple):
    ids: NDArray[np.int32]
    documents: NDArray[np.int64]
    offsets: NDArray[np.int32]
    next: Cursor


def _epoch(
    corpus: CorpusConfig, tokenizer: PreTrainedTokenizerFast, policy: TokenPolicy, cursor: Cursor
) -> Iterator[_Row]:
    """Single rows from `cursor` to the end of its epoch."""
    whole = cursor.document == cursor.token == 0
    packer = _Packer(tokenizer, policy, cursor)
    for document in tokenise(numbered_documents(corpus, cursor.document), tokenizer):
        yield from packer.add(document)
    if whole and packer.cursor == cursor:
        what = "" if policy.cross_documents else " in any one document"
        raise UserError(
            f"corpus {corpus.source!r} ({corpus.split} split) has fewer than {policy.context} tokens{what}; "
            "give more text or a shorter policy.context"
        )


class _Packer:
    """Tokens that wait for their row to fill up."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, policy: TokenPolicy, cursor: Cursor) -> None:
        self.separator = separator_id(tokenizer)
        self.bos = bos_id(tokenizer) if policy.bos else None
        self.filler = filler_id(tokenizer)
        self.policy, self.cursor = policy, cursor
        self.ids = np.empty(0, np.int32)
        self.documents = np.empty(0, np.int64)
        self.offsets = np.empty(0, np.int32)

    def add(self, document: TokenisedDocument) -> Iterator[_Row]:
        """Append a document; give all rows that are full, and with `pad` the rest of the document as a row too."""
        ids, offsets = document.ids, np.arange(len(document.ids), dtype=np.int32)
        if self.separator is not None:
            ids = np.concatenate([np.array([self.separator], np.int32), ids])
            offsets = np.concatenate([np.array([NO_OFFSET], np.int32), offsets])
        if document.number == self.cursor.document:  # earlier rows hold its first tokens
            ids, offsets = ids[self.cursor.token :], offsets[self.cursor.token :]
        if self.policy.cross_documents:
            ids, offsets = np.concatenate([self.ids, ids]), np.concatenate([self.offsets, offsets])
            numbers = np.full(len(ids), document.number, np.int64)
            numbers[: len(self.documents)] = self.documents
        else:
            numbers = np.full(len(ids), document.number, np.int64)
        self.ids, self.documents, self.offsets = ids, numbers, offsets
        yield from self._full_rows()
        if self.policy.pad and (self.offsets != NO_OFFSET).any():
            self.cursor = self._cursor_at(len(self.ids))
            yield self._row(int(self.bos is not None and self._is_bos(0)), len(self.ids))

    def _full_rows(self) -> Iterator[_Row]:
        begin = 0
        while True:
            first = begin
            if self.bos is not None and self._is_bos(begin):
                first += 1  # the row's own BOS serves: no model was trained on two in a row
            end = first + self.policy.context - (self.bos is not None)
            if end > len(self.ids):
                break
            self.cursor = self._cursor_at(end)
            yield self._row(first, end)
            begin = end
        self.ids, self.documents, self.offsets = self.ids[begin:], self.documents[begin:], self.offsets[begin:]

    def _is_bos(self, at: int) -> bool:
        return at < len(self.ids) and self.offsets[at] == NO_OFFSET and self.ids[at] == self.bos

    def _row(self, begin: int, end: int) -> _Row:
        ids, numbers, offsets = self.ids[begin:end], self.documents[begin:end], self.offsets[begin:end]
        if self.bos is not None:
            ids = np.concatenate([np.array([self.bos], np.int32), ids])
            numbers = np.concatenate([numbers[:1], numbers])
            offsets = np.concatenate([np.array([NO_OFFSET], np.int32), offsets])
        if missing := self.policy.context - len(ids):
            ids = np.concatenate([ids, np.full(missing, self.filler, np.int32)])
            numbers = np.concatenate([numbers, np.full(missing, numbers[-1])])
            offsets = np.concatenate([offsets, np.full(missing, PADDING, np.int32)])
        return _Row(ids, numbers, offsets, self.cursor)

    def _cursor_at(self, index: int) -> Cursor:
        row = self.cursor.row + 1
        if index == len(self.ids):
            return replace(self.cursor, document=int(self.documents[-1]) + 1, token=0, row=row)
        token = int(self.offsets[index]) + (self.separator is not None)
        return replace(self.cursor, document=int(self.documents[index]), token=token, row=row)
