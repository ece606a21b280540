"""How a latent is called: the name that somebody gave it, else what it stands for in a supervised dictionary."""

from __future__ import annotations

import streamlit as st

from app import reading
from app.workspace import Run
from saelab.errors import UserError
from saelab.features.index import FeatureIndex
from saelab.features.notes import Notes


def notes(run: Run) -> Notes:
    """Names and notes on the latents of the run's feature index: what is written is about what it shows."""
    index = reading.feature_index(run)
    return Notes(run.paths.notes, index.summary.get("settings", {}).get("dictionary_sha256", ""), index.d_sae)


def names(run: Run) -> dict[int, str]:
    """The names that were given; {} where the file can't be read, which the pages that edit it say."""
    try:
        return _names(notes(run), str(run.paths.notes), reading.stamp(run.paths.notes))
    except (UserError, FileNotFoundError):
        return {}


@st.cache_resource(max_entries=64, show_spinner=False)
def _names(_notes: Notes, path: str, stamp: int) -> dict[int, str]:
    return {note.latent: note.name for note in _notes.all() if note.name}


def meaning(index: FeatureIndex, latent: int) -> str | None:
    """Attribute and value, of a supervised dictionary's latent."""
    found = index.meaning(latent)
    return None if found is None else f"{found.group} = {found.value}"


def called(run: Run, latent: int) -> str | None:
    """What to write beside the latent's number; None where it has no name."""
    return names(run).get(latent) or meaning(reading.feature_index(run), latent)
