"""Find latents: by a word, by their names and notes, by example texts, or by a direction."""

from __future__ import annotations

import streamlit as st

from app import address, links, reading, state
from app.search.direction import by_direction
from app.search.example import by_example
from app.search.notes import by_note
from app.search.word import by_word

BY = "by"  # in the address
WAYS = {"word": "Word or label", "example": "Example texts", "direction": "Direction", "notes": "Names and notes"}


def show() -> None:
    """The page."""
    run = state.chosen_run()
    index = reading.feature_index(run)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Search", anchor=False, width="stretch")
        links.copy_button()
    way = address.choice("Search by", BY, WAYS, "word", label_visibility="collapsed")
    if way == "example":
        by_example(run)
    else:
        {"word": by_word, "direction": by_direction, "notes": by_note}[way](run, index)
