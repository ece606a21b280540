"""Tokenizers small enough to count by hand."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ["<sep>", "a", "b", "c", "d", "e", "f", "g", "h"]


def words_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """One id per word: a = 1 … h = 8; "<sep>" = 0 is special only where `special` says so."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@pytest.fixture(scope="session")
def plain_tokenizer() -> PreTrainedTokenizerFast:
    """Without special tokens."""
    return words_tokenizer()


@pytest.fixture(scope="session")
def eos_tokenizer() -> PreTrainedTokenizerFast:
    """With an EOS token and no BOS."""
    return words_tokenizer(eos_token="<sep>")


@pytest.fixture(scope="session")
def bos_tokenizer() -> PreTrainedTokenizerFast:
    """With one token that is both BOS and EOS, as GPT-2 has."""
    return words_tokenizer(bos_token="<sep>", eos_token="<sep>")
