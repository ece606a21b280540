"""Latents by example: they fire on one text and not on another."""

from __future__ import annotations

import streamlit as st

from app import address, blocks, cells, tokens
from app.latent.portrait import latent_link
from app.part import part
from app.prompt import prompts
from app.prompt.prompts import LONGEST, Prompt
from app.tokens import ShownToken
from app.workspace import Run

ON, OFF, STRENGTH = "on", "off", "strength"  # in the address
SHOWN = 20
COLUMNS = (
    ("Latent", ""), ("Contrast", "sl-number"), ("On the first", ""), ("On the second", ""),
    ("Where it fires in the first", "sl-wraps"),
)  # fmt: skip
STRENGTHS = {"largest": "Largest activation", "mean": "Mean over tokens"}
DEFINED = (
    "Contrast = strength on the first text − strength on the second. A latent's strength on a text is {how}, in units "
    "of its largest activation in the index: 1 is as strong as it ever was there."
)
HOW = {"largest": "its largest activation on any token", "mean": "its mean activation over the tokens"}


def by_example(run: Run) -> None:
    """Two fields, and the latents ranked by contrast."""
    left, right = st.columns(2, gap="large")
    with left:
        said = "as in: The dog ran to the park."
        on = address.text("Fires on this text", ON, lines=3, max_chars=LONGEST, placeholder=said)
    with right:
        said = "as in: The dog sat down."
        off = address.text("and not on this one (may be empty)", OFF, lines=3, max_chars=LONGEST, placeholder=said)
    if not on.strip():
        st.caption("Type or paste a text, and one that differs from it in what you are after. Ctrl+Enter reads them.")
        return
    _ranking(run, on, off)


@part
def _ranking(run: Run, on: str, off: str) -> None:
    from saelab.features.contrast import by_contrast, strengths

    how = "mean" if address.choice("Strength", STRENGTH, STRENGTHS, "largest") == "mean" else "largest"
    first = prompts.prompt(run, on)
    second = prompts.prompt(run, off) if off.strip() else None
    one = strengths(first.reading, how)
    other = one.new_zeros(len(one)) if second is None else strengths(second.reading, how)
    ranking = by_contrast(one, other, prompts.units(run, len(one)), SHOWN)
    st.caption(DEFINED.format(how=HOW[how]))
    if not ranking.latents:
        st.caption("No latent fires more strongly on the first text.")
        return
    longest = max(item.one for item in ranking.latents)
    rows = [
        (
            latent_link(run, item.latent),
            f"{item.one - item.other:.2f}",
            cells.bar("mass", item.one / longest, f"{item.one:.2f}"),
            cells.bar("near", item.other / longest, f"{item.other:.2f}"),
            _passage(first, item.latent),
        )
        for item in ranking.latents
    ]
    st.html(blocks.grid(COLUMNS, rows))
    notes = [f"{prompt.left_out:,} tokens at the end were not read." for prompt in (first, second)
             if prompt is not None and prompt.left_out]  # fmt: skip
    if ranking.unknown:
        notes.append(f"{ranking.unknown:,} latents that fire here and never did in the index are left out.")
    if notes:
        st.caption(" ".join(notes))


def _passage(shown: Prompt, latent: int) -> str:
    values = shown.reading.of(latent).tolist()
    words = [
        ShownToken(word, value, None, value == max(values)) for word, value in zip(shown.words, values, strict=True)
    ]
    return tokens.passage(words, max(values))
