"""Find latents by a word: those that fire on it, promote it, suppress it, or detect a label of that name."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import blocks, links, reading, state
from app.blocks import Bar
from app.notation import percent
from app.portrait import latent_link
from app.problems import empty_state
from app.tokens import chip
from app.workspace import Run
from saelab.features.index import FeatureIndex

QUERY, TOKEN = "q", "token"  # in the address
SPELLINGS = 16  # tokens offered for a word
SHOWN = 15  # lines of a list
LABELS = 3


def show() -> None:
    """The page."""
    run = state.chosen_run()
    index = reading.feature_index(run)
    st.title("Search", anchor=False)
    word = st.text_input(
        "A word, a piece of one, or a label",
        key=QUERY,
        bind="query-params",
        placeholder="as in: said",
        on_change=_forget_token,
    )
    if not word.strip():
        st.caption(
            "Finds the latents that fire on it, promote or suppress it as the next token, or detect such a label."
        )
        return
    ids = index.find_tokens(word, SPELLINGS)
    labels = [label for label in reading.labels(run) if word.strip().lower() in label.lower()][:LABELS]
    if not ids and not labels:
        empty_state("Nothing reads like that", "No token of the model and no label contains it. Try a shorter piece.")
        return
    if ids:
        _token(run, index, word, ids)
    for label in labels:
        found = index.search_label(label, SHOWN)
        items = [Bar(latent_link(run, item.latent), item.f1, f"{item.f1:.2f}") for item in found]
        st.html(
            blocks.titled(f"Detects the label “{label}”", blocks.bars(items, "labels"), "F1, 1 is a perfect detector")
        )


def _forget_token() -> None:
    st.query_params.pop(TOKEN, None)


def _token(run: Run, index: FeatureIndex, word: str, ids: Sequence[int]) -> None:
    """The spellings of the word, and three lists of latents for the chosen one."""
    asked = st.query_params.get(TOKEN, "")
    token = int(asked) if asked in map(str, ids) else ids[0]
    st.html(f'<div class="sl-chips">{"".join(_spelling(run, index, word, id_, id_ == token) for id_ in ids)}</div>')
    mass = index.search_token(token, SHOWN)
    columns = st.columns(3, gap="large")
    lists = (
        (
            "Fires on it",
            "mass",
            [(item.latent, item.share, percent(item.share)) for item in mass],
            "share of the latent",
        ),
        ("Promotes it", "promoted", _weights(index, token, 1), "logit per unit of activation"),
        ("Suppresses it", "suppressed", _weights(index, token, -1), "logit per unit of activation"),
    )
    for column, (title, kind, items, aside) in zip(columns, lists, strict=True):
        full = max((abs(size) for _, size, _ in items), default=1.0) or 1.0
        lines = [Bar(latent_link(run, latent), abs(size) / full, text) for latent, size, text in items]
        inner = blocks.bars(lines, kind) if lines else '<p class="sl-faint">No latent has it among its first.</p>'
        column.html(blocks.titled(title, inner, aside))


def _weights(index: FeatureIndex, token: int, sign: int) -> list[tuple[int, float, str]]:
    """Latent, weight, and the weight as text."""
    return [(item.latent, item.weight, f"{item.weight:+.2f}") for item in index.search_promoted(token, SHOWN, sign)]


def _spelling(run: Run, index: FeatureIndex, word: str, token: int, is_chosen: bool) -> str:
    inner = chip(index.vocabulary[token], "chosen" if is_chosen else "plain")
    return links.anchor(inner, links.SEARCH, run=run.name, q=word, token=token)
