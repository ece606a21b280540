"""Latents by a word: those that fire on it, promote it, suppress it, detect a label of that name, or are called so."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from app import address, blocks, links, naming, reading
from app.blocks import Bar
from app.latent.portrait import latent_link
from app.notation import percent
from app.problems import empty_state
from app.tokens import chip
from app.workspace import Run
from saelab.errors import UserError
from saelab.features.index import FeatureIndex

QUERY, TOKEN = "q", "token"  # in the address
SPELLINGS = 16  # tokens offered for a word
SHOWN = 15  # lines of a list
CANDIDATES = 100  # latents that fire on a token, to choose the lines from
LABELS = 3


def by_word(run: Run, index: FeatureIndex) -> None:
    """The field, and what is found."""
    word = address.text(
        "A word, a piece of one, a label, or a name you gave", QUERY, forgets=(TOKEN,), placeholder="as in: said"
    )
    if not word.strip():
        st.caption(
            "Finds the latents that fire on it, promote or suppress it as the next token, detect such a label, or have "
            "it in their name or note."
        )
        return
    ids = index.find_tokens(word, SPELLINGS)
    labels = [label for label in reading.labels(run) if word.strip().lower() in label.lower()][:LABELS]
    named = _named(run, word) + _standing_for(run, index, word)
    if not ids and not labels and not named:
        empty_state("Nothing reads like that", "No token, no label and no name contains it. Try a shorter piece.")
        return
    if named:
        st.html(blocks.titled("Called so", f'<div class="sl-found">{"".join(named)}</div>'))
    if ids:
        _token(run, index, word, ids)
    for label in labels:
        found = index.search_label(label, SHOWN)
        items = [Bar(latent_link(run, item.latent), item.f1, f"{item.f1:.2f}") for item in found]
        st.html(
            blocks.titled(f"Detects the label “{label}”", blocks.bars(items, "labels"), "F1, 1 is a perfect detector")
        )


def _named(run: Run, word: str) -> list[str]:
    """Latents with the word in their name or note."""
    try:
        found = naming.notes(run).search(word, SHOWN)
    except UserError:  # the page of notes says what is wrong with the file
        return []
    return [f'<p>{latent_link(run, note.latent)} <span class="sl-faint">{escape(note.note[:120])}</span></p>'
            for note in found]  # fmt: skip


def _standing_for(run: Run, index: FeatureIndex, word: str) -> list[str]:
    """Latents of a supervised dictionary whose attribute or value contains the word."""
    if not index.summary["groups"]:
        return []
    texts = ((latent, naming.meaning(index, latent) or "") for latent in range(index.d_sae))
    found = [latent for latent, text in texts if word.strip().lower() in text.lower()]
    return [f"<p>{latent_link(run, latent)}</p>" for latent in found[:SHOWN]]


def _token(run: Run, index: FeatureIndex, word: str, ids: Sequence[int]) -> None:
    """The spellings of the word, and three lists of latents for the chosen one."""
    asked = st.query_params.get(TOKEN, "")
    token = int(asked) if asked in map(str, ids) else ids[0]
    st.html(f'<div class="sl-chips">{"".join(_spelling(run, index, word, id_, id_ == token) for id_ in ids)}</div>')
    # Of those with most activation on it, the ones that are about it: what fires everywhere fires on this word, too.
    mass = sorted(index.search_token(token, CANDIDATES), key=lambda item: item.share, reverse=True)[:SHOWN]
    columns = st.columns(3, gap="large")
    lists = (
        (
            "Fires on it",
            "mass",
            [(item.latent, item.share, percent(item.share)) for item in mass],
            "share of the latent's activation",
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
