"""Documents of a corpus as token ids, tokenised once: what was read before comes from the cache.

A cached **chunk** says which documents of the corpus' split have numbers from `begin` to `end`, and what their ids are.
It is true by itself, so chunks may overlap, several processes may write at once, and one that is killed loses its last
chunk only. Chunks lie in a folder whose name is a digest of all that decides the ids: the tokenizer, the identity of
the source, which documents are looked at, and this package's own code. A chunk's name holds the digest of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import tokenizers
from safetensors.numpy import load, save

from saelab.corpora.config import CorpusConfig
from saelab.corpora.sources import DocumentSource, numbered_documents, open_source
from saelab.corpora.tokens import TokenisedDocument, tokenise
from saelab.disk.cache import cache_folder, make_room, touch
from saelab.disk.files import disk_errors, staged_file
from saelab.errors import UserError
from saelab.models.fingerprints import tokenizer_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHUNK_TOKENS = 2**22  # 16 MB: what is held in memory, and what an interruption can cost
CHUNK_DOCUMENTS = 2**17

Fresh = Callable[[int], Generator[TokenisedDocument]]
_NAME = re.compile(r"(?P<begin>\d+)-(?P<end>\d+)-(?P<kind>part|last)-(?P<digest>[0-9a-f]{32})\.safetensors")
_fingerprints: WeakKeyDictionary[PreTrainedTokenizerFast, tuple[int, str]] = WeakKeyDictionary()


def tokenised(corpus: CorpusConfig, tokenizer: PreTrainedTokenizerFast, start: int = 0) -> Iterator[TokenisedDocument]:
    """Documents of the corpus' split from document number `start` on.

    Raises:
        UserError: as `numbered_documents`.
    """
    source = open_source(corpus)

    def fresh(at: int) -> Generator[TokenisedDocument]:
        return tokenise(numbered_documents(corpus, at, source), tokenizer)

    root = cache_folder()
    key = None if root is None else _key(corpus, source, tokenizer)
    if root is None or key is None:
        return fresh(start)
    return _Cached(root / "tokens" / key, lambda: _key(corpus, source, tokenizer) == key).read(start, fresh)


def _key(corpus: CorpusConfig, source: DocumentSource, tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Digest of all that decides the ids of the split's documents; None where that can't be known."""
    identity = source.identity()
    if identity is None:
        return None
    looked_at = corpus.column, corpus.split, corpus.seed, corpus.held_out
    parts = (*looked_at, identity, _fingerprint(tokenizer), tokenizer.split_special_tokens, _code())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """`tokenizer_fingerprint`, once for each state of a tokenizer: it takes a second for the largest vocabularies."""
    known = _fingerprints.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        known = _fingerprints[tokenizer] = len(tokenizer), tokenizer_fingerprint(tokenizer)
    return known[1]


@cache
def _code() -> str:
    """Digest of the code that reads and writes documents, so that no version of it meets another's documents."""
    digest = hashlib.sha256(tokenizers.__version__.encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class _Chunk(NamedTuple):
    """A file of the cache, by its name."""

    path: Path
    begin: int
    end: int
    last: bool
    """No document comes behind it."""
    digest: str

    @classmethod
    def all_in(cls, folder: Path) -> Iterator[_Chunk]:
        for path in folder.glob("*.safetensors"):
            if match := _NAME.fullmatch(path.name):
                yield cls(path, int(match["begin"]), int(match["end"]), match["kind"] == "last", match["digest"])

    def holds(self, number: int) -> bool:
        return self.begin <= number and (number < self.end or self.last)

    def documents(self) -> list[TokenisedDocument] | None:
        """Its content; None where it is not what was written."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        if _digest(content) != self.digest:
            return None
        tensors = load(content)
        ids = np.split(tensors["ids"], tensors["ends"])[:-1]  # the last part is what follows the last end: nothing
        return [TokenisedDocument(number, some) for number, some in zip(tensors["numbers"].tolist(), ids, strict=True)]


class _Cached:
    """The cache of one corpus under one tokenizer.

    Args:
        unchanged: whether the source is still what `folder` stands for.
    """

    def __init__(self, folder: Path, unchanged: Callable[[], bool]) -> None:
        self.folder, self.unchanged = folder, unchanged
        self.writes = True

    def read(self, start: int, fresh: Fresh) -> Iterator[TokenisedDocument]:
        """Documents from number `start` on: cached ones, and in the gaps those of `fresh`, which are then cached."""
        at = start
        while at is not None:
            chunk, documents = self._find(at)
            if chunk is None:
                at = yield from self._fill(at, fresh)
                continue
            yield from (document for document in documents if document.number >= at)
            at = None if chunk.last else chunk.end

    def _find(self, at: int) -> tuple[_Chunk | None, list[TokenisedDocument]]:
        """The chunk that holds document number `at` and reaches furthest, and its documents. Damaged ones go."""
        touch(self.folder)
        holding = [chunk for chunk in _Chunk.all_in(self.folder) if chunk.holds(at)]
        for chunk in sorted(holding, key=lambda chunk: (chunk.last, chunk.end), reverse=True):
            documents = chunk.documents()
            if documents is not None:
                return chunk, documents
            with suppress(OSError):
                chunk.path.unlink()
        return None, []

    def _fill(self, begin: int, fresh: Fresh) -> Generator[TokenisedDocument, None, int | None]:
        """Documents that are not cached; returns where cached ones begin again, None at the end of the corpus."""
        waiting: list[TokenisedDocument] = []
        tokens, end = 0, begin
        with closing(fresh(begin)) as documents:
            try:
                for document in documents:
                    waiting.append(document)
                    tokens, end = tokens + len(document.ids), document.number + 1
                    yield document
                    if tokens >= CHUNK_TOKENS or len(waiting) >= CHUNK_DOCUMENTS:
                        self._write(begin, end, waiting)
                        begin, waiting, tokens = end, [], 0
                        if any(chunk.holds(end) for chunk in _Chunk.all_in(self.folder)):
                            return end
            except BaseException:  # whoever reads may stop at any document
                if waiting:
                    self._write(begin, end, waiting)
                raise
        self._write(begin, end, waiting, last=True)
        return None

    def _write(self, begin: int, end: int, documents: list[TokenisedDocument], last: bool = False) -> None:
        """Cache documents, all that the split has with numbers from `begin` to `end`; not where that can't be."""
        if not self.writes or sys.is_finalizing():
            return
        lengths = [len(document.ids) for document in documents]
        content = save(
            {
                "numbers": np.array([document.number for document in documents], np.int64),
                "ends": np.cumsum(lengths, dtype=np.int64),
                "ids": np.concatenate([np.empty(0, np.int32), *(document.ids for document in documents)]),
            }
        )
        path = self.folder / f"{begin}-{end}-{'last' if last else 'part'}-{_digest(content)}.safetensors"
        try:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self.writes = self.unchanged() and make_room(self.folder, len(content))
            if self.writes:
                with staged_file(path) as file:
                    file.write(content)
        except UserError as error:  # the work itself can go on
            self.writes = False
            warnings.warn(f"tokens are not cached: {error} (SAELAB_CACHE names another folder)", stacklevel=2)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
