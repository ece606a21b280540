"""Documents of a corpus, numbered for ever, and divided into train and test by their numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from saelab.corpora.config import DEMO, HUB_PREFIX, MICROWORLD, CorpusConfig
from saelab.corpora.documents import Document
from saelab.corpora.text_files import FileSource
from saelab.disk import bundled
from saelab.errors import UserError


class NumberedDocument(NamedTuple):
    """A document and its number in the source; numbers count both splits, so that they name a document for good."""

    number: int
    document: Document


class DocumentSource(Protocol):
    """Documents in a fixed order. The n-th item of `read(start)` is document number `start + n`."""

    endless: bool

    def read(self, start: int) -> Iterator[Document]: ...


def numbered_documents(config: CorpusConfig, start: int = 0) -> Iterator[NumberedDocument]:
    """Documents of the config's split, from document number `start` on; blank ones are left out.

    Raises:
        UserError: the source is missing, damaged or of no known kind; or the split is empty.
    """
    empty = True
    divides = config.source != MICROWORLD  # the microworld's splits are two worlds: other names, places, objects
    for number, document in enumerate(open_source(config).read(start), start):
        if not document.text.strip() or (divides and is_held_out(config, number) != (config.split == "test")):
            continue
        empty = False
        yield NumberedDocument(number, document)
    if empty and start == 0:
        hint = "; a larger held_out share or more, shorter documents would fill it" if config.split == "test" else ""
        raise UserError(f"corpus {config.source!r} has no document in its {config.split} split{hint}")


def is_held_out(config: CorpusConfig, number: int) -> bool:
    """Whether document `number` belongs to the test split: by a hash of seed and number, the same for ever."""
    digest = hashlib.blake2b(f"{config.seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < config.held_out * 2**64


def is_endless(config: CorpusConfig) -> bool:
    """Whether the corpus never runs out (the microworld)."""
    return config.source == MICROWORLD


def open_source(config: CorpusConfig) -> DocumentSource:
    """The source that `config.source` names."""
    if config.source == MICROWORLD:
        return _MicroworldSource(config)
    if config.source.startswith(HUB_PREFIX):
        from saelab.corpora.hub_datasets import HubSource

        return HubSource(config)
    if config.source == DEMO:
        return FileSource(bundled("artifacts/demo-corpus.jsonl.gz"), column="text")
    return FileSource(Path(config.source).expanduser(), config.column)


class _MicroworldSource:
    endless = True

    def __init__(self, config: CorpusConfig) -> None:
        from saelab.corpora.microworld import Microworld

        self.world = Microworld(seed=config.seed, split=config.split)

    def read(self, start: int) -> Iterator[Document]:
        while True:
            yield self.world.document(start)
            start += 1
