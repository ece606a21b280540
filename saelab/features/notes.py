"""Names and notes that people give to latents: one small SQLite file in the run, so that they move with it.

Every change is one short transaction under SQLite's own lock, so several visitors may write at once; a change of a note
that somebody else has changed meanwhile is refused, not lost. The file keeps its rollback journal (no write-ahead log):
it stays a single file and works on network disks. Every note says which weights it was written about, since a run's
dictionary may be calibrated, or replaced, under its notes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from saelab.config import Config, build
from saelab.errors import UserError

VERSION = 1
LONGEST_NAME, LONGEST_NOTE = 80, 20_000  # characters
_PATIENCE = 10.0  # seconds that a writer waits for others
_TABLE = """
    CREATE TABLE IF NOT EXISTS notes (
        latent INTEGER PRIMARY KEY, name TEXT NOT NULL, note TEXT NOT NULL, changed TEXT NOT NULL,
        dictionary TEXT NOT NULL, revision INTEGER NOT NULL
    )
"""


@dataclass(frozen=True)
class Note:
    """What somebody wrote about a latent.

    Attributes:
        changed: when, ISO 8601 in UTC.
        dictionary: `weights_sha256` of the dictionary that it is about.
        revision: rises with every change; 0 for a latent without a note.
    """

    latent: int
    name: str = ""
    note: str = ""
    changed: str = ""
    dictionary: str = ""
    revision: int = 0


class _Entry(Config):
    """One note in an exported file."""

    latent: int = Field(ge=0)
    name: str = Field("", max_length=LONGEST_NAME)
    note: str = Field("", max_length=LONGEST_NOTE)
    changed: str = ""
    dictionary_sha256: str = ""

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if name != name.strip() or not name.isprintable():
            raise ValueError("a name is one line of printable characters without spaces around it")
        return name


class _File(Config):
    """An exported file."""

    schema_version: int
    notes: list[_Entry]


class Notes:
    """The notes on one run's dictionary.

    Args:
        path: the SQLite file; it is made by the first change.
        dictionary: `weights_sha256` of the dictionary as it is now.
        d_sae: its latents.

    Raises (all methods):
        UserError: the file is damaged, of a newer saelab, or can't be written.
    """

    def __init__(self, path: Path, dictionary: str, d_sae: int) -> None:
        self.path, self.dictionary, self.d_sae = path, dictionary, d_sae

    def of(self, latent: int) -> Note:
        """The note on a latent; an empty one where there is none."""
        found = self._read("WHERE latent = ?", latent)
        return found[0] if found else Note(latent)

    def all(self) -> list[Note]:
        """Every note, by latent."""
        return self._read()

    def search(self, text: str, limit: int = 50) -> list[Note]:
        """Notes whose name or text contains `text`, names first; upper and lower case alike."""
        wanted = text.strip().casefold()
        if not wanted:
            return []
        found = [n for n in self.all() if wanted in n.name.casefold() or wanted in n.note.casefold()]
        return sorted(found, key=lambda n: (wanted not in n.name.casefold(), n.latent))[:limit]

    def is_of_other_weights(self, note: Note) -> bool:
        """Whether the dictionary was calibrated or replaced since the note was written."""
        return note.revision > 0 and note.dictionary != self.dictionary

    def save(self, latent: int, name: str, note: str, seen: int) -> bool:
        """Set name and note; both empty removes them.

        Args:
            seen: revision of the note that the writer had before them.

        Returns:
            False, and nothing is changed, if somebody else has changed it since.

        Raises:
            UserError: name or note is too long, or no such latent.
        """
        given = {"latent": latent, "name": " ".join(name.split()), "note": note.strip()}
        entry = build(_Entry, {**given, "dictionary_sha256": self.dictionary}, where="the note")
        self._check_latent(latent)
        with self._writing() as connection:
            row = connection.execute("SELECT revision FROM notes WHERE latent = ?", [latent]).fetchone()
            if (row[0] if row else 0) != seen:
                return False
            _put(connection, entry)
        return True

    def export(self) -> dict[str, Any]:
        """All notes as JSON that `load` takes."""
        notes = [
            {
                "latent": n.latent,
                "name": n.name,
                "note": n.note,
                "changed": n.changed,
                "dictionary_sha256": n.dictionary,
            }
            for n in self.all()
        ]
        return {"schema_version": VERSION, "notes": notes}

    def load(self, content: Any, where: str, of_other_weights: bool = False) -> tuple[int, int]:
        """Take in exported notes, all or none; a note on a latent that has one replaces it.

        Args:
            content: what `export` gave, out of a file.
            where: the file's name, for messages.
            of_other_weights: take notes that were written about other weights than the dictionary has now.

        Returns:
            How many were new, and how many replaced one that said something else.

        Raises:
            UserError: it is no such file, or it is about other weights.
        """
        if not isinstance(content, dict) or content.get("schema_version") != VERSION:
            raise UserError(f"{where} holds no exported notes: no JSON object with schema_version {VERSION} and notes")
        entries = build(_File, content, where=where).notes
        seen: set[int] = set()
        for entry in entries:
            self._check_latent(entry.latent)
            if entry.latent in seen:
                raise UserError(f"{where} has two notes on latent {entry.latent}; leave one")
            seen.add(entry.latent)
            if entry.dictionary_sha256 != self.dictionary and not of_other_weights:
                raise UserError(
                    f"the note on latent {entry.latent} in {where} was written about other weights than this "
                    "dictionary has, so its latents may mean something else"
                )
        before = {note.latent: note for note in self.all()}
        new = [e for e in entries if e.latent not in before]
        other = [e for e in entries if e.latent in before and not _same(e, before[e.latent])]
        with self._writing() as connection:
            for entry in (*new, *other):
                _put(connection, entry)
        return len(new), len(other)

    def _check_latent(self, latent: int) -> None:
        if latent >= self.d_sae:
            raise UserError(f"latent {latent} is not in this dictionary, which has latents 0 to {self.d_sae - 1}")

    def _read(self, condition: str = "", *values: int) -> list[Note]:
        with self._reading() as connection:
            if connection is None:
                return []
            rows = connection.execute(f"SELECT * FROM notes {condition} ORDER BY latent", values)
            return [Note(*row) for row in rows]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """None where nobody has written a note yet."""
        if not self.path.is_file():
            yield None
            return
        with self._open("ro") as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, which others wait for."""
        with self._open("rwc") as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            with closing(sqlite3.connect(address, _PATIENCE, isolation_level=None, uri=True)) as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > VERSION:
                    raise UserError(f"{self.path} was made by a newer saelab; update saelab to read it")
                yield connection
        except sqlite3.Error as error:
            raise UserError(f"{self.path} can't be used: {error}") from error


def _put(connection: sqlite3.Connection, entry: _Entry) -> None:
    if not entry.name and not entry.note:
        connection.execute("DELETE FROM notes WHERE latent = ?", [entry.latent])
        return
    connection.execute(
        "INSERT INTO notes VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (latent) DO UPDATE SET name = excluded.name, "
        "note = excluded.note, changed = excluded.changed, dictionary = excluded.dictionary, revision = revision + 1",
        [entry.latent, entry.name, entry.note, entry.changed or _now(), entry.dictionary_sha256],
    )


def _same(entry: _Entry, note: Note) -> bool:
    return (entry.name, entry.note) == (note.name, note.note)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
