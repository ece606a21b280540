"""Examples of a latent, with its activation on every token: the strongest, and a fair sample of the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import streamlit as st

from app import tokens
from app.notation import short
from app.tokens import ShownToken
from saelab.features.index import Example, FeatureIndex, LatentStatistics

TAB = "tab"  # in the address
TABS = {"top": 0, "strong": 4, "upper": 3, "lower": 2, "weak": 1}  # address → quantile of the index
NAMES = {"top": "Strongest", "strong": "75–100%", "upper": "50–75%", "lower": "25–50%", "weak": "0–25%"}


def examples(index: FeatureIndex, statistics: LatentStatistics) -> None:
    """The tabs, the colour scale, and the chosen tab's examples as one piece of HTML."""
    maximum = statistics.max_activation or 0.0
    found = index.examples(statistics.latent)
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        quantile = TABS[_tab()]
        st.html(tokens.legend(maximum), width="content")
    chosen = [example for example in found if example.quantile == quantile]
    if chosen:
        st.html(example_rows(index, chosen, maximum))
    else:
        st.caption("No token has an activation in this part of the range.")


def _tab() -> str:
    """The tab in the address, behind the control that changes it."""
    named = st.query_params.get(TAB)
    st.session_state["examples_tab"] = named if named in TABS else "top"
    return st.segmented_control(
        "Examples, by activation as a share of the largest", list(TABS), format_func=NAMES.__getitem__, required=True,
        key="examples_tab", on_change=_keep_tab,
    ) or "top"  # fmt: skip


def _keep_tab() -> None:
    st.query_params[TAB] = st.session_state["examples_tab"]


def example_rows(index: FeatureIndex, chosen: Sequence[Example], maximum: float) -> str:
    """Rows of examples: value and place on the left, the text around the peak on the right."""
    losses = index.losses(chosen)  # of all examples in one read
    rows = zip(chosen, losses, strict=True)
    return tokens.rows([(_meta(index, example), _passage(index, example, loss, maximum)) for example, loss in rows])


def _meta(index: FeatureIndex, example: Example) -> str:
    position = example.token % index.summary["context"]
    return f"<b>{short(example.value)}</b>document {example.document:,}<br>position {position:,}"


def _passage(index: FeatureIndex, example: Example, losses: Iterable[float], maximum: float) -> str:
    texts = [index.vocabulary[id_] for id_ in example.tokens]
    shown = [
        ShownToken(text, float(value), None if math.isnan(loss) else float(loss), place == example.focus)
        for place, (text, value, loss) in enumerate(zip(texts, example.values, losses, strict=True))
    ]
    return tokens.passage(shown, maximum)
