"""Examples of a latent, with its activation on every token: the strongest, and a fair sample of the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import streamlit as st

from app import links, tokens
from app.notation import short, signed
from app.tokens import ShownToken
from saelab.features.index import Example, FeatureIndex, LatentStatistics

TAB, OPEN = "tab", "open"  # in the address: which examples, and the token whose whole row is shown
TABS = {"top": 0, "strong": 4, "upper": 3, "lower": 2, "weak": 1}  # address → quantile of the index
NAMES = {"top": "Strongest", "strong": "75–100%", "upper": "50–75%", "lower": "25–50%", "weak": "0–25%"}
EFFECT = "Change of the next token's loss, in nats, when this latent's contribution is taken away here"


def examples(index: FeatureIndex, statistics: LatentStatistics, found: Sequence[Example]) -> None:
    """The tabs, the colour scale, and the chosen tab's examples as one piece of HTML."""
    maximum = statistics.max_activation or 0.0
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        quantile = TABS[_tab()]
        st.html(tokens.legend(maximum), width="content")
    chosen = [example for example in found if example.quantile == quantile]
    if not chosen:
        st.caption("No token has an activation in this part of the range.")
        return
    opened = st.query_params.get(OPEN)
    whole = {e.token: whole_row(index, statistics.latent, e) for e in chosen if str(e.token) == opened}
    st.html(example_rows(index, chosen, maximum, whole, lambda e: _more(e, e.token in whole)))


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
    st.query_params.pop(OPEN, None)


def _more(example: Example, is_open: bool) -> str:
    """A link that shows the example's whole row, or closes it again."""
    here = {**st.query_params.to_dict(), OPEN: None if is_open else example.token}
    return links.anchor("less text" if is_open else "more text", links.LATENT, **here)


def whole_row(index: FeatureIndex, latent: int, example: Example) -> tuple[Example, Sequence[float]]:
    """The example with all text of its row, and the losses there."""
    context = index.summary["context"]
    window = index.window(example.token, before=context, after=context, latent=latent)
    values = np.zeros(len(window.tokens), np.float32) if window.values is None else window.values
    wide = Example(
        example.quantile, example.rank, example.token, example.document, example.value, window.tokens, values,
        window.focus, example.effect,
    )  # fmt: skip
    return wide, window.loss.tolist()


def example_rows(
    index: FeatureIndex,
    chosen: Sequence[Example],
    maximum: float,
    whole: dict[int, tuple[Example, Sequence[float]]] | None = None,
    more: Callable[[Example], str] = lambda _: "",
) -> str:
    """Rows of examples: value, effect and place on the left, the text around the peak on the right.

    Args:
        whole: by token, examples to be shown in another width, with the losses on it.
        more: HTML beside an example's value.
    """
    losses: list[Sequence[float]] = [loss.tolist() for loss in index.losses(chosen)]  # of all examples in one read
    shown = [(whole or {}).get(example.token, (example, loss)) for example, loss in zip(chosen, losses, strict=True)]
    return tokens.rows(
        [(_meta(index, example, more(example)), _passage(index, example, loss, maximum)) for example, loss in shown]
    )


def _meta(index: FeatureIndex, example: Example, more: str) -> str:
    position = example.token % index.summary["context"]
    effect = ""
    if example.effect is not None:
        effect = f'<span data-tip="{EFFECT}" tabindex="0">loss without it {signed(example.effect, 2)}</span><br>'
    first = f'<div class="sl-first"><b>{short(example.value)}</b>{more}</div>'
    place = f'<span data-tip="document {example.document:,}, position {position:,} in its context">'
    return f"{first}{effect}{place}doc {example.document:,} · pos {position:,}</span>"


def _passage(index: FeatureIndex, example: Example, losses: Iterable[float], maximum: float) -> str:
    texts = [index.vocabulary[id_] for id_ in example.tokens]
    shown = [
        ShownToken(
            text, float(value), None if math.isnan(loss) else float(loss), place == example.focus,
            example.effect if place == example.focus else None,
        )
        for place, (text, value, loss) in enumerate(zip(texts, example.values, losses, strict=True))
    ]  # fmt: skip
    return tokens.passage(shown, maximum)
