"""Names and notes on the pages: saved, shown wherever the latent is linked, exported and brought in again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from saelab.disk import RunPaths
from saelab.features.notes import Notes
from tests.app.synthetic import Shape, write_run
from tests.app.test_views import html

OpenPage = Callable[..., AppTest]
HOSTILE = "<b>mine</b> *x* [y](z)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "mine", Shape(d_sae=24, n_rows=20))
    return tmp_path


def notes(folder: Path) -> Notes:
    return Notes(RunPaths(folder / "mine").notes, "", 24)


def search(page: AppTest, **query: str) -> AppTest:
    page.session_state["go_to_page"] = ("search", {"run": ["mine"], **{name: [value] for name, value in query.items()}})
    return page.run()


def write(page: AppTest, name: str, note: str) -> AppTest:
    page.text_input[0].set_value(name)
    page.text_area[0].set_value(note)
    return next(b for b in page.button if b.label == "Save").click().run()


def test_a_saved_name_is_shown_here_and_wherever_the_latent_is_linked(open_page: OpenPage, folder: Path) -> None:
    page = write(open_page(folder, run="mine", latent=3), HOSTILE, "line 1\n**line 2**")
    assert not page.exception
    assert '<p class="sl-subtitle">&lt;b&gt;mine&lt;/b&gt; *x* [y](z)</p>' in html(page)
    assert page.text[0].value == "line 1\n**line 2**"
    assert (notes(folder).of(3).name, notes(folder).of(3).revision) == (HOSTILE, 1)
    linked = open_page(folder, run="mine", latent=2)  # whose neighbour it is
    assert '3 <span class="sl-given">&lt;b&gt;mine&lt;/b&gt; *x* [y](z)</span>' in html(linked)


def test_a_form_starts_with_what_is_written_and_can_empty_it(open_page: OpenPage, folder: Path) -> None:
    notes(folder).save(3, "old", "text", seen=0)
    page = open_page(folder, run="mine", latent=3)
    assert (page.text_input[0].value, page.text_area[0].value) == ("old", "text")
    page = write(page, "", "")
    assert 'class="sl-subtitle"' not in html(page)
    assert notes(folder).all() == []


def test_somebody_elses_change_is_kept_and_ones_own_words_are_not_lost(open_page: OpenPage, folder: Path) -> None:
    one, two = (open_page(folder, run="mine", latent=3) for _ in range(2))
    write(one, "theirs", "")
    page = write(two, "mine", "my words")
    assert "Somebody else changed this note" in page.warning[0].value.replace("\\", "")
    assert "my words" in page.code[0].value
    assert notes(folder).of(3).name == "theirs"
    assert page.text_input[0].value == "theirs"
    assert not write(page, "mine", "").warning
    assert notes(folder).of(3).name == "mine"


def test_a_note_on_another_latent_does_not_travel_along(open_page: OpenPage, folder: Path) -> None:
    page = write(open_page(folder, run="mine", latent=3), "third", "")
    page.button(key="next").click().run()
    assert page.text_input[0].value == ""
    assert "third</p>" not in html(page)


def test_notes_about_other_weights_say_so(open_page: OpenPage, folder: Path) -> None:
    Notes(RunPaths(folder / "mine").notes, "other", 24).save(3, "old", "", seen=0)
    page = open_page(folder, run="mine", latent=3)
    assert any("other weights" in caption.value for caption in page.caption)


def test_a_damaged_file_of_notes_does_not_take_the_pages_away(open_page: OpenPage, folder: Path) -> None:
    RunPaths(folder / "mine").notes.write_bytes(b"nothing of the kind" * 50)
    page = open_page(folder, run="mine", latent=3)
    assert "Fires on" in html(page)
    page = write(page, "x", "")
    assert "can't be used" in page.warning[0].value.replace("\\", "")
    assert "can&#x27;t be used" in html(search(page, by="notes"))


def test_the_list_of_notes_and_its_search(open_page: OpenPage, folder: Path) -> None:
    page = search(open_page(folder, run="mine"), by="notes")
    assert "No names yet" in html(page)
    notes(folder).save(3, "dates", "<i>in May</i>", seen=0)
    notes(folder).save(5, "", "in June", seen=0)
    page.run()
    assert "&lt;i&gt;in May&lt;/i&gt;" in html(page)
    assert "in June" in html(page)
    found = html(search(page, by="notes", q="MAY"))
    assert "in May" in found
    assert "in June" not in found
    assert "dates" in html(search(page, q="date"))  # among what a word finds
    assert "Called so" in html(page)


def test_what_is_exported_can_be_imported(open_page: OpenPage, folder: Path) -> None:
    notes(folder).save(3, "dates", "", seen=0)
    exported = json.dumps(notes(folder).export()).encode()
    notes(folder).save(3, "", "", seen=1)
    page = search(open_page(folder, run="mine"), by="notes")
    assert page.file_uploader
    page.file_uploader[0].set_value(("notes.json", exported, "application/json"))
    next(b for b in page.button if b.label == "Import").click().run()
    assert page.success[0].value.replace("\\", "") == "1 new, 0 replaced."
    assert notes(folder).of(3).name == "dates"
    page.file_uploader[0].set_value(("bad.json", b"{", "application/json"))
    next(b for b in page.button if b.label == "Import").click().run()
    assert "bad.json is no JSON" in page.warning[0].value.replace("\\", "")
