"""The demo model's tokenizer: byte-level BPE of 4,096 tokens; every listed name, object and place is one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from saelab.corpora.microworld import Microworld, words

END = "<|endoftext|>"
COPIES = 3000  # how often each listed word is shown to the trainer: enough to be merged before the 4,096th token
DOCUMENTS = 20_000  # of the microworld
_SAMPLE_CHARACTERS = 5_000_000  # of each file


def whole_words() -> list[str]:
    """The words that must be single tokens with a leading space."""
    return [*words.FEMALE_NAMES, *words.MALE_NAMES, *words.OBJECTS, *words.PLACES]


def train_tokenizer(sources: Iterable[list[str]], vocabulary: int = 4096) -> Tokenizer:
    """Train on up to 5M characters of each file's documents, on microworld text, and on the word lists.

    Raises RuntimeError if a listed word is not one token.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sample(sources), trainer)
    broken = [word for word in whole_words() if len(tokenizer.encode(" " + word).ids) != 1]
    if broken:
        raise RuntimeError(f"{len(broken)} listed words are more than one token: {', '.join(broken[:10])}")
    return tokenizer


def _sample(sources: Iterable[list[str]]) -> Iterator[str]:
    for documents in sources:
        budget = _SAMPLE_CHARACTERS
        for text in documents:
            yield text[:budget]
            budget -= len(text)
            if budget <= 0:
                break
    yield from (document.text for document in islice(Microworld(seed=2).documents(), DOCUMENTS))
    listing = " " + " ".join(whole_words())
    yield from (listing for _ in range(COPIES))


def for_transformers(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """The same tokenizer in the form that `AutoTokenizer.from_pretrained` reads back."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
