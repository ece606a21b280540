"""Documents from standard input, which is read once and remembered in a file without a name while the process lives."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from saelab.corpora.config import CorpusConfig
from saelab.corpora.documents import Document
from saelab.corpora.text_files import LINES, PLAIN, kind_of, readable, texts_in
from saelab.disk import disk_errors
from saelab.errors import UserError

WHAT = "standard input"


class StandardInput:
    """Source "stdin": plain text with separators. "stdin.jsonl", "stdin.txt.gz", …: as a file with such an ending.

    A stage may read it several times (to plan, then to work), but only from the beginning on: a process started later
    has another standard input.

    Raises:
        UserError: it is a terminal, is shared by several processes, or is of a kind that needs a file.
    """

    endless = False

    def __init__(self, config: CorpusConfig) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(f"several processes can't share {WHAT} (corpus.source {config.source!r}); give them a file")
        if kind_of(Path(config.source)) not in ("", *PLAIN, *LINES):
            raise UserError(f"corpus.source {config.source!r} must be plain text (stdin) or JSON lines (stdin.jsonl)")
        if sys.stdin is None or (not sys.stdin.closed and sys.stdin.isatty()):  # closed: read to its end before
            raise UserError(f"corpus.source is {config.source!r}, {WHAT}, but no text is piped in; or name a file")
        self.config = config
        self.spool = _spool(sys.stdin.buffer, config.source, config.column)

    def read(self, start: int) -> Iterator[Document]:
        if start > self.spool.count:
            require_lasting(self.config)
        for number, text in enumerate(self.spool.read()):
            if number >= start:
                yield Document(text)

    def identity(self) -> str | None:
        """Nothing says what is piped in next time."""
        return None


def require_lasting(config: CorpusConfig) -> None:
    """Refuse to go on with work that another process began on text that was gone with it.

    Raises:
        UserError: the text was piped in.
    """
    if config.is_standard_input:
        raise UserError(
            "text from standard input is gone with the process that read it, so its work can't be continued; "
            "start it anew (--overwrite), or put the text into a file"
        )


class _Spool:
    """Texts of a stream in the order of arrival; each is taken from the stream when it is first asked for."""

    def __init__(self, raw: BinaryIO, source: str, column: str) -> None:
        self.count = 0
        self._fresh = texts_in(raw, Path(source), column, WHAT)
        with disk_errors(Path(tempfile.gettempdir())):
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._file.close)
        self._lock = Lock()

    def read(self) -> Iterator[str]:
        """All texts from the first on. Several may read at once."""
        number = place = 0
        while True:
            with self._lock, readable(WHAT):
                if number == self.count and not self._take():
                    return
                self._file.seek(place)
                line = self._file.readline()
                place = self._file.tell()
            number += 1
            yield json.loads(line)

    def _take(self) -> bool:
        text = next(self._fresh, None)
        if text is None:
            return False
        with disk_errors(Path(tempfile.gettempdir())):
            self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(text).encode() + b"\n")
        self.count += 1
        return True


@lru_cache(maxsize=1)
def _spool(raw: BinaryIO, source: str, column: str) -> _Spool:
    return _Spool(raw, source, column)
