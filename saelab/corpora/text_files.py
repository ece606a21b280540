"""Texts in files: plain text with separators, JSON lines, Parquet; compressed or not; one file or a folder of them."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from saelab.corpora.documents import Document
from saelab.errors import UserError

SEPARATOR = "<|endoftext|>"
LONGEST_DOCUMENT = 2**20  # characters; a longer one is cut at a line's end, so that memory stays bounded
PLAIN, LINES, TABLE = (".txt", ".text", ".md"), (".jsonl", ".ndjson"), (".parquet",)
COMPRESSED = (".gz", ".zst")
_CHUNK = 2**20


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
            with _readable(file):
                if _kind(file) in TABLE:
                    count = _parquet_rows(file)
                    texts = _parquet(file, self.column, skip) if skip < count else iter(())
                    skip = max(skip - count, 0)
                else:
                    texts = _lines(file, self.column) if _kind(file) in LINES else _plain(file)
                    while skip and next(texts, None) is not None:
                        skip -= 1
                yield from map(Document, texts)


def text_files(path: Path) -> list[Path]:
    """The readable files at `path`: itself, or all below it in the order of their paths (hidden ones left out)."""
    if not path.exists():
        raise UserError(
            f"corpus {path} does not exist; give a file, a folder, microworld, demo, or hf:NAME (Hugging Face dataset)"
        )
    known = ", ".join((*PLAIN, *LINES, *TABLE))
    if path.is_file():
        if _kind(path) not in (*PLAIN, *LINES, *TABLE):
            raise UserError(f"corpus {path} is of no known kind; known: {known} (all but .parquet also as .gz or .zst)")
        return [path]
    hidden = {file for file in path.rglob("*") if any(p.startswith(".") for p in file.relative_to(path).parts)}
    files = sorted(f for f in set(path.rglob("*")) - hidden if f.is_file() and _kind(f) in (*PLAIN, *LINES, *TABLE))
    if not files:
        raise UserError(f"corpus folder {path} holds no file of a known kind ({known})")
    return files


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


def _plain(file: Path) -> Iterator[str]:
    with _open(file) as handle:
        yield from cut_documents(handle)


def _lines(file: Path, column: str) -> Iterator[str]:
    with _open(file) as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise UserError(f"corpus {file}, line {number} is not valid JSON") from None
            if not isinstance(row, dict) or not isinstance(row.get(column), str):
                found = f"its keys are {', '.join(sorted(row))}" if isinstance(row, dict) else "it is not an object"
                raise UserError(f"corpus {file}, line {number} has no text under {column!r}; {found} (set column)")
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


def _kind(file: Path) -> str:
    """The suffix that says how to read the file, compression set aside; "" when there is none."""
    suffixes = [s.lower() for s in file.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSED:
        kind = suffixes[-2] if len(suffixes) > 1 else ""
        return "" if kind in TABLE else kind
    return suffixes[-1] if suffixes else ""


def _open(file: Path) -> TextIO:
    suffix = file.suffix.lower()
    if suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig")
    if suffix == ".zst":
        import pyarrow

        return io.TextIOWrapper(io.BufferedReader(pyarrow.input_stream(file, compression="zstd")), encoding="utf-8-sig")
    return open(file, encoding="utf-8-sig")


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what can be wrong with a file into one sentence."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"corpus {file} is not UTF-8 text ({error.reason}); convert it to UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"corpus {file} is a damaged .gz file: {error}") from None
    except (OSError, ValueError) as error:  # Arrow reports damage to Parquet and .zst as one of these
        raise UserError(f"corpus {file} can't be read: {error}") from None
