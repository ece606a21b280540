"""What each token id looks like as text, so that browsing needs neither the tokenizer nor the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelab.features.schema import VOCABULARY
from saelab.features.tables import TableWriter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def write_vocabulary(writer: TableWriter, tokenizer: PreTrainedTokenizerFast, size: int) -> None:
    """Write the text of ids 0 … size - 1."""
    assert writer.table is VOCABULARY
    writer.append({"id": list(range(size)), "text": token_texts(tokenizer, size)})


def token_texts(tokenizer: PreTrainedTokenizerFast, size: int) -> list[str]:
    """Text of each id as it reads inside a text, leading space included; "�" for a part of a character.

    Some tokenizers (SentencePiece's) drop a leading space at the start of a text, so each id is decoded after another
    token and that token's text is cut off. An id that the tokenizer does not know (padding of the embedding) is "".
    """
    known = min(size, len(tokenizer))
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"][-1]
    before = tokenizer.decode([anchor], clean_up_tokenization_spaces=False)
    texts = tokenizer.batch_decode([[anchor, i] for i in range(known)], clean_up_tokenization_spaces=False)
    return [text[len(before) :] for text in texts] + [""] * (size - known)
