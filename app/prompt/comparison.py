"""Two texts: the latents that tell them apart."""

from __future__ import annotations

import streamlit as st

from app import address, links
from app.cells import bar, signed_bar
from app.latent_names import linker
from app.notation import short
from app.prompt.panel import PART
from app.prompt.prompts import Prompt
from app.table import Column, Order, table
from app.tokens import alone
from app.workspace import Run

BETWEEN = "between"  # in the address
SHOWN = 30
PLACES = {"texts": "the whole texts", "tokens": "the two chosen tokens"}


def comparison(run: Run, one: Prompt, other: Prompt, one_place: int, other_place: int) -> None:
    """The section below the two texts."""
    from saelab.features.prompt import most_different

    st.subheader("Latents that differ most", anchor=False)
    between = address.choice("Compare", BETWEEN, PLACES, "texts")
    if between == "tokens":
        words = f"Left: {alone(one.words[one_place])}", f"Right: {alone(other.words[other_place])}"
        values = [each.reading.codes.take(at, at + 1) for each, at in ((one, one_place), (other, other_place))]
        dense = [codes.to_dense()[0] for codes in values]
    else:
        words = "Left text", "Right text"
        dense = [each.reading.largest() for each in (one, other)]
    found = most_different(dense[0], dense[1], SHOWN)
    if not found:
        st.caption("No latent differs.")
        return
    columns = (
        Column("latent", "Latent", "Its number, and the token that carries most of it", False, sortable=False),
        Column("one", words[0], "Activation", False, sortable=False),
        Column("other", words[1], "Activation", False, sortable=False),
        Column("difference", "Difference", "Right less left", False, sortable=False),
        Column("do", "", "Colour both texts by it", False, sortable=False),
    )
    full = max(max(item.one, item.other) for item in found)
    query = st.query_params.to_dict()
    link = linker(run)
    rows = [
        (
            link(item.latent), bar("mass", item.one / full, short(item.one)),
            bar("mass", item.other / full, short(item.other)), signed_bar(item.other - item.one, full, "+.2f"),
            links.anchor("show", links.PROMPT, links.inside(PART), **{**query, "colour": "latent", "of": item.latent}),
        )
        for item in found
    ]  # fmt: skip
    st.html(table(links.PROMPT, columns, rows, Order("difference", descending=True), query))
    what = "Largest activation of each latent anywhere in each text" if between == "texts" else "Activations there"
    st.caption(f"{what}, tokens that take no part left aside; the {len(found)} largest differences.")
