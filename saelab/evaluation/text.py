"""The text that is read."""

from __future__ import annotations

from pathlib import Path

from saelab.corpora import CorpusConfig
from saelab.errors import UserError


def held_out(run: Path, given: CorpusConfig | None, recorded: CorpusConfig | None) -> CorpusConfig:
    """The test split of the text that is given, else of the run's own.

    Raises:
        UserError: neither is there.
    """
    corpus = given or recorded
    if corpus is None:
        raise UserError(f"{run} records no corpus; say which text to read: --corpus.source microworld")
    return corpus.of_split("test")
