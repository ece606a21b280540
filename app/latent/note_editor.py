"""A latent's name and note, and the form that changes them."""

from __future__ import annotations

import streamlit as st

from app import naming
from app.notation import plain
from app.workspace import Run
from saelab.errors import UserError
from saelab.features.notes import LONGEST_NAME, LONGEST_NOTE, Note

_SAID = "note_said"  # in the session: what came of the last save


def note_of(run: Run, latent: int) -> Note:
    """The note; an empty one where the file can't be read (the editor says why)."""
    try:
        return naming.notes(run).of(latent)
    except UserError:
        return Note(latent)


def note_editor(run: Run, note: Note) -> None:
    """A button that opens the form."""
    # Whoever opens the form sees the note as it is now; another revision is another form.
    key = f"{run.name} {note.latent} {note.revision}"
    with st.popover("Name and note", icon=":material/edit_note:"), st.form(f"form {key}", border=False):
        st.text_input("Name", note.name, max_chars=LONGEST_NAME, key=f"name {key}", placeholder="as in: dates in May")
        st.text_area("Note", note.note, max_chars=LONGEST_NOTE, key=f"note {key}", height=140)
        st.form_submit_button("Save", type="primary", on_click=_save, args=(run, note, key))
        st.caption("Kept in the run's folder; everybody who opens this run sees it.")
    _answer(run, note.latent)


def written(run: Run, note: Note) -> None:
    """The note's text under the title, as it was typed."""
    if note.note:
        st.text(note.note)
    if note.revision and naming.notes(run).is_of_other_weights(note):
        st.caption("Written about other weights: the dictionary was calibrated or trained anew since.")


def _save(run: Run, note: Note, key: str) -> None:
    name, text = st.session_state[f"name {key}"], st.session_state[f"note {key}"]
    try:
        done = naming.notes(run).save(note.latent, name, text, seen=note.revision)
    except UserError as problem:
        st.session_state[_SAID] = (run.name, note.latent, str(problem), f"{name}\n{text}")
        return
    if not done:
        sentence = "Somebody else changed this note while you wrote; the form now shows theirs. You had written:"
        st.session_state[_SAID] = (run.name, note.latent, sentence, f"{name}\n{text}")


def _answer(run: Run, latent: int) -> None:
    """What went wrong with the last save, with what was typed, so that nothing is lost."""
    if _SAID not in st.session_state:
        return
    run_name, about, sentence, typed = st.session_state.pop(_SAID)
    if (run_name, about) == (run.name, latent):
        st.warning(plain(sentence))
        st.code(typed.strip(), language=None)
