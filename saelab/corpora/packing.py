"""Packing: documents, one after another, cut into rows of equal length that a model reads.

Each document is preceded by the tokenizer's separator (if it has one). The same corpus, tokenizer and policy give the
same rows, and a `Cursor` names the place between two rows, so that work can stop there and go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.corpora.rows import NO_OFFSET, PADDING, Cursor, Reason, TokenRows
from saelab.corpora.spans import Span, Spans
from saelab.corpora.token_cache import tokenised
from saelab.corpora.tokens import bos_id, filler_id, separator_id, special_ids
from saelab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def pack(
    corpus: CorpusConfig,
    tokenizer: PreTrainedTokenizerFast,
    policy: TokenPolicy,
    rows: int = 32,
    cursor: Cursor | None = None,
    repeat: bool = False,
    limit: int | None = None,
) -> Iterator[TokenRows]:
    """Rows of the corpus in chunks of `rows`; only the last chunk of an epoch may be shorter.

    What does not fill a row at the end of the corpus (with `cross_documents` off: of a document) is left out, unless
    the policy pads. With `repeat` the corpus then begins again, in the same rows. Sinks are still kept: who they are
    is the model's to say (`saelab.activations.forward`).

    Args:
        cursor: go on from here; the rows are those that an uninterrupted call would have given.
        limit: at most so many rows in all.

    Raises:
        UserError: no row can be filled, the policy asks for a BOS token that the tokenizer does not have, or standard
            input is to be repeated.
    """
    if repeat and corpus.is_standard_input:
        raise UserError(
            f"corpus.source {corpus.source!r}: training may have to read its text again, and standard input can be "
            "read once only; harvest it first, or put the text into a file"
        )
    start = cursor or Cursor()
    cut = _Cut(tokenizer, policy)
    left = limit
    while True:
        spans = _spans(corpus, tokenizer, policy, start)
        while chunk := list(islice(spans, rows if left is None else min(rows, left))):
            yield (made := cut(chunk, start))
            start = made.next
            left = None if left is None else left - len(chunk)
        if not repeat or left == 0:
            return
        start = Cursor(row=start.row, epoch=start.epoch + 1)


def leftover(
    corpus: CorpusConfig, tokenizer: PreTrainedTokenizerFast, policy: TokenPolicy, cursor: Cursor | None = None
) -> int:
    """Tokens of text from `cursor`, which lies behind the last row of a corpus that ends, to that end."""
    spans = _new_spans(tokenizer, policy, cursor or Cursor())
    for document in tokenised(corpus, tokenizer, spans.cursor.document):
        if next(spans.add(document), None) is not None:
            raise ValueError("there are rows behind this place")
    return spans.left_over


def _new_spans(tokenizer: PreTrainedTokenizerFast, policy: TokenPolicy, cursor: Cursor) -> Spans:
    separator = separator_id(tokenizer)
    merges = policy.bos and separator == bos_id(tokenizer)
    return Spans(policy, separator is not None, merges, cursor)


def _spans(
    corpus: CorpusConfig, tokenizer: PreTrainedTokenizerFast, policy: TokenPolicy, cursor: Cursor
) -> Iterator[Span]:
    """What fills each row from `cursor` to the end of its epoch."""
    whole = cursor.document == cursor.token == 0
    spans = _new_spans(tokenizer, policy, cursor)
    for document in tokenised(corpus, tokenizer, cursor.document):
        yield from spans.add(document)
    if whole and spans.cursor == cursor:
        what = "" if policy.cross_documents else " in any one document"
        raise UserError(
            f"corpus {corpus.source!r} ({corpus.split} split) has fewer than {policy.context} tokens{what}; "
            "give more text or a shorter policy.context"
        )


class _Cut:
    """Spans made into tensors."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, policy: TokenPolicy) -> None:
        self.policy = policy
        self.separator = separator_id(tokenizer)
        self.bos = bos_id(tokenizer) if policy.bos else None
        self.filler = filler_id(tokenizer)
        self.special = torch.tensor(special_ids(tokenizer), dtype=torch.int32)

    def __call__(self, spans: Sequence[Span], start: Cursor) -> TokenRows:
        shape = len(spans), self.policy.context
        ids = np.full(shape, self.filler, np.int32)
        documents = np.empty(shape, np.int64)
        offsets = np.full(shape, PADDING, np.int32)
        for row, span in enumerate(spans):
            at = 0
            if self.bos is not None:
                ids[row, 0], offsets[row, 0], at = self.bos, NO_OFFSET, 1
            documents[row] = span.pieces[0].document.number
            for document, begin, end in span.pieces:
                documents[row, at:] = document.number
                if self.separator is not None:
                    if begin == 0:
                        ids[row, at], offsets[row, at] = self.separator, NO_OFFSET
                        at, begin = at + 1, 1
                    begin, end = begin - 1, end - 1
                to = at + end - begin
                ids[row, at:to] = document.ids[begin:end]
                offsets[row, at:to] = np.arange(begin, end)
                at = to
        tensors = torch.from_numpy(ids), torch.from_numpy(documents), torch.from_numpy(offsets)
        dropped = sum(span.dropped for span in spans)
        excluded = excluded_as_text(tensors[0], tensors[2], self.policy, self.special)
        return TokenRows(*tensors, excluded, start, spans[-1].next, dropped)


def excluded_as_text(
    ids: Int[Tensor, "n context"], offsets: Int[Tensor, "n context"], policy: TokenPolicy, special: Int[Tensor, "some"]
) -> UInt8[Tensor, "n context"]:
    """A `Reason` where the text alone has one, 0 elsewhere; of several the first in their order.

    Args:
        offsets: as in `TokenRows`.
        special: ids that stand for no text.
    """
    excluded = torch.zeros(ids.shape, dtype=torch.uint8)
    if policy.exclude_special:
        excluded[torch.isin(ids, special)] = Reason.SPECIAL
    excluded[:, : policy.exclude_first] = Reason.FIRST
    excluded[offsets == PADDING] = Reason.PADDING
    return excluded
