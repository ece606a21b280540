"""What the latents of a supervised dictionary stand for, group by group, each with a link to its page."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import streamlit as st

from app import links
from app.workspace import Run

SHOWN: Final = 60  # values of a group; the others are counted


def groups(run: Run, config: dict[str, Any]) -> None:
    """The section of the overview; nothing for a dictionary that was learnt."""
    named = config.get("allocation", {}).get("groups", [])
    if not named:
        return
    st.subheader("What its latents stand for")
    st.caption(
        "Constructed from labels: of every token it has exactly one latent of each group, the value of an attribute."
    )
    first = 0
    for group in named:
        st.html(_group(run, group["name"], group["values"], first))
        first += len(group["values"])


def _group(run: Run, name: str, values: list[str], first: int) -> str:
    chips = "".join(
        links.anchor(f'<span class="sl-chip">{escape(value)}</span>', links.LATENT, run=run.name, latent=first + place)
        for place, value in enumerate(values[:SHOWN])
    )
    more = f'<span class="sl-faint">and {len(values) - SHOWN:,} more</span>' if len(values) > SHOWN else ""
    last = first + len(values) - 1
    return (
        f'<h4 class="sl-title">{escape(name)}<small>{len(values):,} values, latents {first:,} to {last:,}</small></h4>'
        f'<div class="sl-chips">{chips}{more}</div>'
    )
