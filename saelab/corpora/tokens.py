"""Tokenisation: text to ids in batches, without special tokens of the tokenizer's own making."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.corpora.sources import NumberedDocument
from saelab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BATCH_DOCUMENTS = 64
_BATCH_CHARACTERS = 2**18


class TokenisedDocument(NamedTuple):
    """Ids of a document's text (nothing added), and its number in the source."""

    number: int
    ids: NDArray[np.int32]


def tokenise(documents: Iterable[NumberedDocument], tokenizer: PreTrainedTokenizerFast) -> Generator[TokenisedDocument]:
    """Ids of each document. The tokenizer works on several at once, in threads of its own."""
    batch: list[NumberedDocument] = []
    characters = 0
    for item in documents:
        batch.append(item)
        characters += len(item.document.text)
        if len(batch) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield from _tokenise_batch(batch, tokenizer)
            batch, characters = [], 0
    yield from _tokenise_batch(batch, tokenizer)


def separator_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The token put before every document: BOS, or EOS where there is no BOS; None when the tokenizer has neither."""
    separator = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return separator if isinstance(separator, int) else None


def filler_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """What fills up a row's right, where no real token reads it: the padding token, else the separator, else id 0."""
    padding = tokenizer.pad_token_id
    return padding if isinstance(padding, int) else separator_id(tokenizer) or 0


def special_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids that stand for no text, which `TokenPolicy.exclude_special` leaves out."""
    return sorted(set(tokenizer.all_special_ids))


def bos_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The BOS token; a UserError when the tokenizer has none."""
    bos = tokenizer.bos_token_id
    if not isinstance(bos, int):
        raise UserError("policy.bos is true but the tokenizer has no beginning-of-sequence token; set it to false")
    return bos


def character_offsets(text: str, tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, int]]:
    """Start and end character of each token of `text`, aligned with `tokenise`'s ids."""
    return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]


def _tokenise_batch(batch: list[NumberedDocument], tokenizer: PreTrainedTokenizerFast) -> Iterator[TokenisedDocument]:
    if not batch:
        return
    # Straight to the Rust library, which lets other threads run meanwhile: the tokenizer's own call makes Python lists
    # of masks and offsets that nobody reads, and takes up to four times as long.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    encoded = backend.encode_batch_fast([item.document.text for item in batch], add_special_tokens=False)
    for item, encoding in zip(batch, encoded, strict=True):
        yield TokenisedDocument(item.number, np.asarray(encoding.ids, dtype=np.int32))
