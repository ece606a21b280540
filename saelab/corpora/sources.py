"""Documents of a corpus, numbered for ever, and divided into train and test by their numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

from saelab.corpora.config import DEMO, GENERATED, HUB_PREFIX, MICROWORLD, CorpusConfig
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

    def identity(self) -> str | None:
        """Text that is the same only as long as the documents are; None where nothing is known to be."""
        ...


def numbered_documents(
    config: CorpusConfig, start: int = 0, source: DocumentSource | None = None
) -> Iterator[NumberedDocument]:
    """Documents of the config's split, from document number `start` on; blank ones are left out.

    Args:
        source: the config's, if it is open already.

    Raises:
        UserError: the source is missing, damaged or of no known kind; or the split is empty.
    """
    empty = True
    divides = config.source not in GENERATED  # those are written for their split
    for number, document in enumerate((source or open_source(config)).read(start), start):
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
    """Whether the corpus never runs out: it is written as it is read."""
    return config.source in GENERATED


def open_source(config: CorpusConfig) -> DocumentSource:
    """The source that `config.source` names."""
    if config.source in GENERATED:
        return _GeneratedSource(config)
    if config.source.startswith(HUB_PREFIX):
        from saelab.corpora.hub_datasets import HubSource

        return HubSource(config)
    if config.is_standard_input:
        from saelab.corpora.standard_input import StandardInput

        return StandardInput(config)
    if config.source == DEMO:
        return FileSource(bundled("artifacts/demo-corpus.jsonl.gz"), column="text")
    return FileSource(Path(config.source).expanduser(), config.column)


def writer(config: CorpusConfig) -> Callable[[int], Document]:
    """Of a generated corpus: from a document's number to the document, each computed on its own."""
    if config.source == MICROWORLD:
        from saelab.corpora.microworld import Microworld

        return Microworld(seed=config.seed, split=config.split).document
    from saelab.corpora.microworld.ioi import task_document

    return lambda number: task_document(Random(f"ioi {config.seed} {config.split} {number}"), config.split)


class _GeneratedSource:
    endless = True

    def __init__(self, config: CorpusConfig) -> None:
        self.config, self.document = config, writer(config)

    def read(self, start: int) -> Iterator[Document]:
        return map(self.document, count(start))

    def identity(self) -> str | None:
        return f"{self.config.source} {self.config.split} {self.config.seed}"
