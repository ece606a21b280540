"""One latent: what it fires on, how often and how strongly, what it promotes, and what is like it."""

from __future__ import annotations

import random

import streamlit as st

from app import blocks, links, reading, state
from app.examples import examples
from app.notation import percent, short
from app.portrait import portrait
from app.problems import empty_state
from app.workspace import Run
from saelab.features.index import FeatureIndex, LatentStatistics


def show() -> None:
    """The page."""
    run = state.chosen_run()
    index = reading.feature_index(run)
    number = state.chosen_latent(index.d_sae)
    statistics = index.latent(number)
    _title(run, index, number)
    st.html(_facts(index, statistics))
    left, right = st.columns([1.9, 1], gap="large")
    with left:
        if statistics.n_active:
            examples(index, statistics)
        else:
            empty_state(
                "It never fired",
                f"On none of the {index.n_tokens:,} tokens of this index. It may fire on other text, or be dead; "
                "what it would promote still stands on the right.",
            )
    with right:
        portrait(run, index, statistics)


def _title(run: Run, index: FeatureIndex, number: int) -> None:
    last = index.d_sae - 1
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.title(f"Latent {number}", anchor=False, width="stretch")
        st.button(
            "Previous", icon=":material/arrow_back:", key="previous", shortcut="Left", disabled=number == 0,
            on_click=state.go_to_latent, args=(number - 1,),
        )  # fmt: skip
        st.button(
            "Next", icon=":material/arrow_forward:", key="next", shortcut="Right", disabled=number == last,
            on_click=state.go_to_latent, args=(number + 1,),
        )  # fmt: skip
        st.button("Random", icon=":material/shuffle:", key="random", on_click=_go_to_random, args=(index,))
        st.number_input(
            "Go to latent", 0, last, value=None, step=1, key="go_to", placeholder=f"Go to 0–{last}", width=170,
            label_visibility="collapsed", on_change=_go_to_typed,
        )  # fmt: skip
        links.copy_button()


def _go_to_typed() -> None:
    typed = st.session_state["go_to"]
    if typed is not None:
        state.go_to_latent(typed)
        st.session_state["go_to"] = None


def _go_to_random(index: FeatureIndex) -> None:
    """A latent that fires, if a few throws find one."""
    for _ in range(50):
        number = random.randrange(index.d_sae)
        if index.latent(number).n_active:
            break
    state.go_to_latent(number)


def _facts(index: FeatureIndex, statistics: LatentStatistics) -> str:
    known = [
        ("fires on", f"{percent(statistics.density)} of tokens"),
        ("that is", f"{statistics.n_active:,} of {index.n_tokens:,}"),
        ("largest activation", short(statistics.max_activation)),
        ("mean when active", short(statistics.mean_activation)),
    ]
    best = index.labels(statistics.latent)[:1]
    return blocks.facts(known + [("best label", f"{label.label} (F1 {label.f1:.2f})") for label in best])
