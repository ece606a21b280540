"""Names and notes: what is saved is read back, two may write at once, texts are only texts, files travel as JSON."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelab.errors import UserError
from saelab.features.notes import Note, Notes

HOSTILE = ("x'; DROP TABLE notes; --", '" OR 1=1 --', "<script>alert(1)</script>", "100%_[a-z]*", "名前 ✓")


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes.sqlite", "a" * 64, 10)


def test_reading_makes_no_file(notes: Notes) -> None:
    assert notes.of(3) == Note(3)
    assert notes.all() == []
    assert notes.search("x") == []
    assert not notes.path.exists()


def test_what_is_saved_is_read_back_by_another_visitor(notes: Notes) -> None:
    assert notes.save(3, "  the  cat\n", " on the mat \n", seen=0)
    other = Notes(notes.path, notes.dictionary, 10)
    found = other.of(3)
    assert (found.name, found.note, found.revision) == ("the cat", "on the mat", 1)
    assert found.changed.endswith("+00:00")
    assert [note.latent for note in other.all()] == [3]


def test_a_note_that_somebody_else_changed_meanwhile_is_kept(notes: Notes) -> None:
    assert notes.save(3, "first", "", seen=0)
    assert not notes.save(3, "second", "", seen=0)  # by a visitor who saw it empty
    assert notes.of(3).name == "first"
    assert notes.save(3, "second", "", seen=1)
    assert notes.of(3).name == "second"


def test_an_empty_note_is_none(notes: Notes) -> None:
    notes.save(3, "name", "note", seen=0)
    assert notes.save(3, "", " ", seen=1)
    assert notes.all() == []


@pytest.mark.parametrize(
    ("latent", "name", "note", "said"),
    [(10, "x", "", "latents 0 to 9"), (1, "x" * 81, "", "name"), (1, "a\x00b", "", "printable"),
     (1, "", "x" * 20_001, "note")],
)  # fmt: skip
def test_what_cannot_be_a_note_is_refused(notes: Notes, latent: int, name: str, note: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        notes.save(latent, name, note, seen=0)
    assert notes.all() == []


def test_of_many_writers_at_once_each_is_heard_or_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"

    def write(number: int) -> bool:
        # Latents 0 to 3 are each written by ten visitors that saw nothing there; each has a connection of its own.
        return Notes(path, "a" * 64, 10).save(number % 4, f"name {number}", "", seen=0)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(write, range(40)))
    assert sum(done) == 4
    kept = {note.latent: note.name for note in Notes(path, "a" * 64, 10).all()}
    winners = {number % 4: f"name {number}" for number, first in enumerate(done) if first}
    assert kept == winners


def test_a_writer_waits_for_another_transaction(notes: Notes) -> None:
    notes.save(1, "one", "", seen=0)
    busy = sqlite3.connect(notes.path, isolation_level=None, check_same_thread=False)
    busy.execute("BEGIN IMMEDIATE")
    busy.execute("UPDATE notes SET name = 'theirs', revision = 2 WHERE latent = 1")
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(notes.save, 1, "ours", "", 1)
        assert notes.of(1).name == "one"  # readers see what was there
        busy.execute("COMMIT")
        assert ours.result() is False
    busy.close()
    assert notes.of(1).name == "theirs"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_only_texts(notes: Notes, text: str) -> None:
    notes.save(1, text, text, seen=0)
    notes.save(2, "plain", "", seen=0)
    assert (notes.of(1).name, notes.of(1).note) == (text, text)
    assert [note.latent for note in notes.search(text)] == [1]
    assert notes.of(2).name == "plain"


def test_search_has_names_before_notes_and_ignores_case(notes: Notes) -> None:
    notes.save(1, "", "about CATS", seen=0)
    notes.save(5, "a cat", "", seen=0)
    notes.save(6, "dog", "", seen=0)
    assert [note.latent for note in notes.search("Cat")] == [5, 1]
    assert notes.search(" ") == []


@given(st.dictionaries(st.integers(0, 9), st.tuples(st.text(max_size=20), st.text(max_size=40)), max_size=6))
def test_exported_notes_come_back_the_same(tmp_path_factory: pytest.TempPathFactory, given_notes: dict) -> None:
    folder = tmp_path_factory.mktemp("notes")
    one, other = (Notes(folder / name, "a" * 64, 10) for name in ("one.sqlite", "other.sqlite"))
    for latent, (name, note) in given_notes.items():
        clean = "".join(c for c in name if c.isprintable())
        one.save(latent, clean, note.replace("\x00", ""), seen=0)
    exported = json.loads(json.dumps(one.export()))
    assert other.load(exported, "notes.json") == (len(one.all()), 0)
    assert other.export() == one.export()
    assert other.load(exported, "notes.json") == (0, 0)  # nothing new the second time


def test_imported_notes_replace_those_of_the_same_latent(notes: Notes, tmp_path: Path) -> None:
    notes.save(1, "mine", "", seen=0)
    notes.save(2, "mine too", "", seen=0)
    theirs = Notes(tmp_path / "theirs.sqlite", notes.dictionary, 10)
    theirs.save(1, "theirs", "", seen=0)
    theirs.save(4, "new", "", seen=0)
    assert notes.load(theirs.export(), "notes.json") == (1, 1)
    assert [(n.latent, n.name) for n in notes.all()] == [(1, "theirs"), (2, "mine too"), (4, "new")]


def entry(**changes: object) -> dict:
    return {"latent": 1, "name": "x", "note": "", "dictionary_sha256": "a" * 64, **changes}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no exported notes"),
        ({"schema_version": 9, "notes": []}, "no exported notes"),
        ({"schema_version": 1}, "notes"),
        ({"schema_version": 1, "notes": [entry(latent="one")]}, "latent"),
        ({"schema_version": 1, "notes": [entry(latent=10)]}, "latents 0 to 9"),
        ({"schema_version": 1, "notes": [entry(), entry()]}, "two notes on latent 1"),
        ({"schema_version": 1, "notes": [entry(name="a\nb")]}, "one line"),
        ({"schema_version": 1, "notes": [entry(colour="red")]}, "colour"),
        ({"schema_version": 1, "notes": [entry(latent=0), entry(dictionary_sha256="b")]}, "other weights"),
    ],
)
def test_a_bad_file_is_refused_whole(notes: Notes, content: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        notes.load(content, "notes.json")
    assert notes.all() == []


def test_notes_on_other_weights_are_taken_only_when_asked_and_say_so(notes: Notes) -> None:
    assert notes.load({"schema_version": 1, "notes": [entry(dictionary_sha256="b")]}, "x", of_other_weights=True) == (
        1,
        0,
    )
    assert notes.is_of_other_weights(notes.of(1))
    notes.save(1, "seen again", "", seen=1)
    assert not notes.is_of_other_weights(notes.of(1))
    assert not notes.is_of_other_weights(notes.of(2))


def test_a_damaged_or_newer_file_is_one_sentence(notes: Notes) -> None:
    notes.path.write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"notes\.sqlite can't be used"):
        notes.of(1)
    notes.path.unlink()
    notes.save(1, "x", "", seen=0)
    with sqlite3.connect(notes.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(UserError, match="newer saelab"):
        notes.save(1, "y", "", seen=1)


def test_a_failed_write_leaves_everything_as_it_was(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    notes.save(1, "before", "", seen=0)
    import saelab.features.notes as module

    real = module._put

    def fails_at_the_second(connection, one):
        if one.latent == 2:
            raise sqlite3.OperationalError("disk is full")
        real(connection, one)

    monkeypatch.setattr(module, "_put", fails_at_the_second)
    with pytest.raises(UserError, match="disk is full"):
        notes.load({"schema_version": 1, "notes": [entry(name="after"), entry(latent=2)]}, "notes.json")
    assert [(n.latent, n.name) for n in notes.all()] == [(1, "before")]
