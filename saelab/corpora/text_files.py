"""Texts in files: plain text with separators, JSON lines, Parquet; compressed or not; one file or a folder of them."""

from __future__ import annotations

import gzip
import io
import json
import time
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from saelab.corpora.documents import Document
from saelab.errors import UserError

SEPARATOR = "<|endoftext|>"
LONGEST_DOCUMENT = 2**20  # characters; a longer one is cut at a line's end, so that memory stays bounded
PLAIN, LINES, TABLE = (".txt", ".text", ".md"), (".jsonl", ".ndjson"), (".parquet",)
COMPRESSED = (".gz", ".zst")
_CHUNK = 2**20
_SETTLED_S = 2.0  # the coarsest clock of a file system in use


class FileSource:
    """Documents of files, numbered through in the order of their names; a blank one keeps its number."""

    endless = False

    def __init__(self, path: Path, column: str) -> None:
        self.files = text_files(path)
        self.column = column

    def read(self, start: int) -> Iterator[Document]:
        """Document number `start` and all after it. Parquet files are skipped unread, others are read up to `start`."""
        skip = start
        for file in self.files:
            with readable(f"corpus {file}"):
                if kind_of(file) in TABLE:
                    count = _parquet_rows(file)
                    texts = _parquet(file, self.column, skip) if skip < count else iter(())
                    skip = max(skip - count, 0)
                    yield from map(Document, texts)
                else:
                    with open(file, "rb") as raw, closing(texts_in(raw, file, self.column, f"corpus {file}")) as texts:
                        while skip and next(texts, None) is not None:
                            skip -= 1
                        yield from map(Document, texts)

    def identity(self) -> str | None:
        """As `state_of` the files."""
        return state_of(self.files)


def text_files(path: Path) -> list[Path]:
    """The readable files at `path`: itself, or all below it in the order of their paths (hidden ones left out)."""
    if not path.exists():
        raise UserError(
            f"corpus {path} does not exist; give a file, a folder, microworld, demo, stdin, or hf:NAME (Hugging Face)"
        )
    known = ", ".join((*PLAIN, *LINES, *TABLE))
    if path.is_file():
        if kind_of(path) not in (*PLAIN, *LINES, *TABLE):
            raise UserError(f"corpus {path} is of no known kind; known: {known} (all but .parquet also as .gz or .zst)")
        return [path]
    hidden = {file for file in path.rglob("*") if any(p.startswith(".") for p in file.relative_to(path).parts)}
    files = sorted(f for f in set(path.rglob("*")) - hidden if f.is_file() and kind_of(f) in (*PLAIN, *LINES, *TABLE))
    if not files:
        raise UserError(f"corpus folder {path} holds no file of a known kind ({known})")
    return files


def texts_in(raw: BinaryIO, named: Path, column: str, what: str) -> Generator[str]:
    """Texts of an open file of JSON lines, or of plain text with separators, as its name says.

    Args:
        what: the file in a sentence.
    """
    with _decompressed(raw, named) as handle:
        yield from _lines(handle, column, what) if kind_of(named) in LINES else cut_documents(handle)


def state_of(files: Sequence[Path]) -> str | None:
    """Text that changes whenever one of the files does; None where one was changed so lately that a further change
    might not show in its times."""
    states = [(file.resolve(), file.stat()) for file in files]
    if any(time.time() - state.st_ctime < _SETTLED_S for _, state in states):
        return None
    return "\n".join(f"{f} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for f, s in states)


def cut_documents(handle: TextIO) -> Iterator[str]:
    """Texts between separators, each at most `LONGEST_DOCUMENT` characters; reads a chunk at a time."""
    rest = ""
    while chunk := handle.read(_CHUNK):
        *whole, rest = (rest + chunk).split(SEPARATOR)
        for text in whole:
            yield from _pieces(text, LONGEST_DOCUMENT)
        *front, rest = _pieces(rest, LONGEST_DOCUMENT + len(SEPARATOR))  # a separator may be only half read
        yield from front
    yield from _pieces(rest, LONGEST_DOCUMENT)


def _pieces(text: str, limit: int) -> Iterator[str]:
    while len(text) > limit:
        end = text.rfind("\n", 0, LONGEST_DOCUMENT) + 1 or LONGEST_DOCUMENT
        yield text[:end].strip()
        text = text[end:]
    yield text if limit > LONGEST_DOCUMENT else text.strip()


def _lines(handle: TextIO, column: str, what: str) -> Iterator[str]:
    for number, line in enumerate(handle, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise UserError(f"{what}, line {number} is not valid JSON") from None
        if not isinstance(row, dict) or not isinstance(row.get(column), str):
            found = f"its keys are {', '.join(sorted(row))}" if isinstance(row, dict) else "it is not an object"
            raise UserError(f"{what}, line {number} has no text under {column!r}; {found} (set column)")
        yield row[column]


def _parquet_rows(file: Path) -> int:
    from pyarrow.parquet import read_metadata

    return read_metadata(file).num_rows


def _parquet(file: Path, column: str, start: int) -> Iterator[str]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as table:
        names = table.schema_arrow.names
        if column not in names:
            raise UserError(f"corpus {file} has no column {column!r}; its columns are {', '.join(names)} (set column)")
        group = 0
        while start >= table.metadata.row_group(group).num_rows:
            start -= table.metadata.row_group(group).num_rows
            group += 1
        for batch in table.iter_batches(1024, row_groups=list(range(group, table.num_row_groups)), columns=[column]):
            texts = batch.column(0).to_pylist()
            for text in texts[start:]:
                if text is not None and not isinstance(text, str):
                    raise UserError(f"corpus {file}, column {column!r} holds {batch.schema.field(0).type}, not text")
                yield text or ""
            start = max(start - len(texts), 0)


def kind_of(file: Path) -> str:
    """The suffix that says how to read the file, compression set aside; "" when there is none."""
    suffixes = [s.lower() for s in file.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        kind = suffixes[-2] if len(suffixes) > 1 else ""
        return "" if kind in TABLE else kind
    return suffixes[-1] if suffixes else ""


def _decompressed(raw: BinaryIO, file: Path) -> TextIO:
    suffix = file.suffix.lower()
    if suffix == ".gz":
        return gzip.open(raw, "rt", encoding="utf-8-sig")
    if suffix == ".zst":
        import pyarrow

        return io.TextIOWrapper(io.BufferedReader(pyarrow.input_stream(raw, compression="zstd")), encoding="utf-8-sig")
    return io.TextIOWrapper(raw, encoding="utf-8-sig")


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn what can be wrong with a file into one sentence about `what`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"{what} is not UTF-8 text ({error.reason}); convert it to UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{what} is a damaged .gz file: {error}") from None
    except (OSError, ValueError) as error:  # Arrow reports damage to Parquet and .zst as one of these
        raise UserError(f"{what} can't be read: {error}") from None
