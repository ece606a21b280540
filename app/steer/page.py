"""Latents turned up or down while the model writes: what comes next, how it answers to strength, and whole texts."""

from __future__ import annotations

from html import escape

import streamlit as st

from app import blocks, links, model, state
from app.dictionary import starting_points
from app.problems import empty_state
from app.prompt import prompts
from app.steer.files import files
from app.steer.form import form
from app.steer.next_token import next_token
from app.steer.settings import LATENTS, from_address
from app.steer.texts import texts
from app.workspace import Run
from saelab.errors import UserError


def show() -> None:
    """The page."""
    run = state.chosen_run()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title("Steer", anchor=False, width="stretch")
        links.copy_button()
    form(run)
    if not st.query_params.get(LATENTS, "").strip():
        _offer(run)
        files(run, None)
        return
    try:
        config = from_address(run, st.query_params.to_dict())
        model.language_model(run)
        next_token(run, config)
    except UserError as problem:
        empty_state("These settings can't be used", str(problem))
        return
    texts(run, config)
    files(run, config)


def _offer(run: Run) -> None:
    """Where no latent is named yet: some to begin with."""
    index = prompts.usable_index(run)
    points = starting_points.choose(index) if index is not None else []
    if not points:
        empty_state("Which latents?", "Name one above, or several with commas between.")
        return
    cards = "".join(
        links.anchor(
            f'<div class="sl-card-head"><b>Latent {point.latent}</b><span>{escape(point.reason)}</span></div>',
            links.STEER, "sl-card", **{**st.query_params.to_dict(), "run": run.name, LATENTS: point.latent},
        )
        for point in points
    )  # fmt: skip
    st.html(blocks.titled("Name latents above, or begin with one of these", f'<div class="sl-cards">{cards}</div>'))
