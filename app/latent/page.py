"""One latent: what it fires on, how often and how strongly, what it promotes, and what is like it."""

from __future__ import annotations

import json
import random
from html import escape

import streamlit as st

from app import links, naming, reading, state
from app.latent.examples import OPEN, examples
from app.latent.facts import facts
from app.latent.file import as_html
from app.latent.note_editor import note_editor, note_of, written
from app.latent.portrait import portrait
from app.problems import empty_state
from app.workspace import Run
from saelab.features.export import as_json
from saelab.features.index import FeatureIndex
from saelab.features.notes import Note


def show() -> None:
    """The page."""
    run = state.chosen_run()
    index = reading.feature_index(run)
    number = state.chosen_latent(index.d_sae)
    statistics = index.latent(number)
    note = note_of(run, number)
    found = index.examples(number)
    _title(index, number)
    if name := note.name or naming.meaning(index, number):
        st.html(f'<p class="sl-subtitle">{escape(name)}</p>')
    st.html(facts(index, statistics, found))
    written(run, note)
    _actions(run, index, note)
    left, right = st.columns([1.9, 1], gap="large")
    with left:
        if statistics.n_active:
            examples(index, statistics, found)
        else:
            empty_state(
                "It never fired",
                f"On none of the {index.n_tokens:,} tokens of this index. It may fire on other text, or be dead; "
                "what it would promote still stands on the right.",
            )
    with right:
        portrait(run, index, statistics)


def _title(index: FeatureIndex, number: int) -> None:
    last = index.d_sae - 1
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.title(f"Latent {number}", anchor=False, width="stretch")
        st.button(
            "Previous", icon=":material/arrow_back:", key="previous", shortcut="Left", disabled=number == 0,
            on_click=_go_to, args=(number - 1,),
        )  # fmt: skip
        st.button(
            "Next", icon=":material/arrow_forward:", key="next", shortcut="Right", disabled=number == last,
            on_click=_go_to, args=(number + 1,),
        )  # fmt: skip
        st.button("Random", icon=":material/shuffle:", key="random", on_click=_go_to_random, args=(index,))
        st.number_input(
            "Go to latent", 0, last, value=None, step=1, key="go_to", placeholder=f"Go to 0–{last}", width=170,
            label_visibility="collapsed", on_change=_go_to_typed,
        )  # fmt: skip
        links.copy_button()


def _actions(run: Run, index: FeatureIndex, note: Note) -> None:
    """What can be done with the latent: name it, take it along, try it."""
    number, stem = note.latent, f"{run.name.replace('/', '-')}-latent-{note.latent}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        note_editor(run, note)
        with st.popover("Export", icon=":material/download:"):
            st.download_button(
                "This page as one HTML file", lambda: as_html(index, number, note), f"{stem}.html", "text/html",
                key="export_html", on_click="ignore", width="stretch",
            )  # fmt: skip
            st.download_button(
                "Its numbers and examples as JSON",
                lambda: json.dumps(as_json(index, number, note), ensure_ascii=False, allow_nan=False, indent=1),
                f"{stem}.json", "application/json", key="export_json", on_click="ignore", width="stretch",
            )  # fmt: skip
        st.html(
            '<div class="sl-actions">'
            + links.anchor("Steer with it →", links.STEER, run=run.name, latents=number)
            + links.anchor("Try it on a text →", links.PROMPT, run=run.name, colour="latent", of=number)
            + "</div>",
            width="content",
        )


def _go_to(number: int) -> None:
    """For callbacks: another latent, whose examples are all closed."""
    st.query_params.pop(OPEN, None)
    state.go_to_latent(number)


def _go_to_typed() -> None:
    typed = st.session_state["go_to"]
    if typed is not None:
        _go_to(typed)
        st.session_state["go_to"] = None


def _go_to_random(index: FeatureIndex) -> None:
    """A latent that fires, if a few throws find one."""
    for _ in range(50):
        number = random.randrange(index.d_sae)
        if index.latent(number).n_active:
            break
    _go_to(number)
