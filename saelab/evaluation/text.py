"""What a run was made on: its text, the precision its model ran in, and what turns text into tokens."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from saelab.activations.manifest import Manifest
from saelab.config import build, read_yaml
from saelab.corpora import CorpusConfig
from saelab.disk import RunPaths
from saelab.errors import UserError
from saelab.models import LanguageModel


class Recorded(NamedTuple):
    """What a run knows of its making; None for a dictionary that comes alone."""

    corpus: CorpusConfig | None
    dtype: str | None
    """Precision of the language model."""


def recorded(run: Path) -> Recorded:
    """As the run's config.yaml, or the harvested activations named there, record it."""
    where = RunPaths(run).config
    if not where.is_file():
        return Recorded(None, None)
    settings = read_yaml(where)
    if settings.get("activations"):
        harvest = Manifest.load(Path(settings["activations"])).config
        return Recorded(harvest.corpus, harvest.model_dtype)
    corpus = build(CorpusConfig, settings.get("corpus") or {}, where=f"corpus of {where}")
    return Recorded(corpus, settings.get("dtype"))


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
