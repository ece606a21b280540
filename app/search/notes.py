"""The names and notes of a run: found by a word, taken along as JSON, and brought in from a file."""

from __future__ import annotations

import json
from html import escape

import streamlit as st

from app import address, blocks, naming
from app.latent.portrait import latent_link
from app.notation import plain
from app.problems import empty_state
from app.search.word import QUERY
from app.workspace import Run
from saelab.errors import UserError
from saelab.features.index import FeatureIndex
from saelab.features.notes import Note, Notes

SHOWN = 200  # notes of a list
LONGEST = 300  # characters of a note in it
_SAID, _FILE, _ANYWAY = "import_said", "import_file", "import_anyway"


def by_note(run: Run, index: FeatureIndex) -> None:
    """The field, the notes that match, and the file they travel in."""
    notes = naming.notes(run)
    everything = notes.all()
    word = address.text("A piece of a name or note; empty for all", QUERY, placeholder="as in: dates")
    found = notes.search(word, SHOWN) if word.strip() else everything[:SHOWN]
    if not everything:
        empty_state("No names yet", "Give one on a latent's page, or bring in a file that somebody exported.")
    elif not found:
        st.caption("No name and no note contains it.")
    else:
        st.html(_table(run, found))
        if not word.strip() and len(everything) > SHOWN:
            st.caption(f"The first {SHOWN} of {len(everything):,}; type a word to find others.")
    _exchange(run, notes, bool(everything))


def _table(run: Run, found: list[Note]) -> str:
    rows = [(latent_link(run, n.latent), escape(_short(n.note)), escape(n.changed[:10])) for n in found]
    return blocks.grid((("Latent", ""), ("Note", "sl-wraps"), ("Changed", "sl-faint")), rows)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _exchange(run: Run, notes: Notes, has_some: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="top", gap="small"):
        st.download_button(
            "Export all as JSON",
            lambda: json.dumps(notes.export(), ensure_ascii=False, indent=1),
            f"{run.name.replace('/', '-')}-notes.json", "application/json", icon=":material/download:",
            key="export_notes", on_click="ignore", disabled=not has_some,
        )  # fmt: skip
        with st.popover("Import", icon=":material/upload:"), st.form("import", border=False, clear_on_submit=True):
            st.file_uploader("A file of exported notes", ["json"], key=_FILE, max_upload_size=50)
            st.checkbox("also those about other weights of this dictionary", key=_ANYWAY)
            st.form_submit_button("Import", type="primary", on_click=_import, args=(run,))
            st.caption("A note on a latent that has one replaces it.")
    if _SAID in st.session_state:
        kind, sentence = st.session_state.pop(_SAID)
        (st.success if kind == "done" else st.warning)(plain(sentence))


def _import(run: Run) -> None:
    file = st.session_state[_FILE]
    if file is None:
        st.session_state[_SAID] = ("refused", "Choose a file first.")
        return
    try:
        content = json.loads(file.getvalue().decode("utf-8"))
        new, other = naming.notes(run).load(content, file.name, of_other_weights=st.session_state[_ANYWAY])
    except UserError as problem:
        st.session_state[_SAID] = ("refused", f"Nothing was imported: {problem}")
    except ValueError as problem:  # UnicodeDecodeError and JSONDecodeError are kinds of it
        st.session_state[_SAID] = ("refused", f"Nothing was imported: {file.name} is no JSON ({problem})")
    else:
        st.session_state[_SAID] = ("done", f"{new:,} new, {other:,} replaced.")
