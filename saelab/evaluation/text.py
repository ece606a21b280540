"""The text that is read: which, and what turns it into tokens."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from saelab.corpora import CorpusConfig
from saelab.errors import UserError
from saelab.models import LanguageModel


def held_out(run: Path, given: CorpusConfig | None, recorded: CorpusConfig | None) -> CorpusConfig:
    """The test split of the text that is given, else of the run's own.

    Raises:
        UserError: neither is there.
    """
    corpus = given or recorded
    if corpus is None:
        raise UserError(f"{run} records no corpus; say which text to read: --corpus.source microworld")
    return corpus.of_split("test")


def tokenizer_of(model: LanguageModel) -> PreTrainedTokenizerFast:
    """The model's tokenizer.

    Raises:
        UserError: it has none that reads text here.
    """
    if not isinstance(model.tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"model {model.name} has no tokenizer, so text can't be read; add tokenizer.json to it")
    return model.tokenizer
