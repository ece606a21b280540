"""Beside the examples: the tokens that carry a latent, what it promotes and suppresses, its values, its relatives."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import streamlit as st

from app import blocks, figures, latent_names
from app.blocks import Bar
from app.notation import percent
from app.tokens import alone
from app.workspace import Run
from saelab.features.index import FeatureIndex, LatentStatistics, TokenWeight

SHOWN = 8  # lines of a list
HISTOGRAM = "tokens by value, counts on a log scale"


def portrait(run: Run, index: FeatureIndex, statistics: LatentStatistics) -> None:
    """All of it, in the order of use; two pieces of HTML with the histogram between them."""
    st.html(carried(index, statistics) + promoted(index, statistics.latent))
    if statistics.n_active:
        st.html(f'<h4 class="sl-title">Activations<small>{HISTOGRAM}</small></h4>')
        figure = figures.activation_histogram(statistics.histogram.tolist(), statistics.max_activation or 1.0)
        st.plotly_chart(figure, config=figures.CHART, key="histogram")
    st.html(
        matched_labels(index, statistics.latent)
        + relatives(index, statistics.latent, lambda number: latent_link(run, number))
    )


def carried(index: FeatureIndex, statistics: LatentStatistics) -> str:
    """Tokens by share of the latent's summed activation."""
    if not statistics.n_active:
        return ""
    texts = [index.vocabulary[i] for i in statistics.top_tokens[:SHOWN]]
    items = [
        Bar(alone(text), share, percent(share)) for text, share in zip(texts, statistics.top_token_share, strict=False)
    ]
    return blocks.titled("Fires on", blocks.bars(items, "mass"), "share of its summed activation")


def promoted(index: FeatureIndex, latent: int) -> str:
    """Next tokens that it promotes and suppresses."""
    logits = index.logits(latent)
    if not logits.promoted and not logits.suppressed:
        return blocks.titled(
            "Next tokens", '<p class="sl-faint">Not known: this site does not write to the residual stream.</p>'
        )
    largest = max(abs(item.weight) for item in [*logits.promoted, *logits.suppressed])
    return "".join(
        blocks.titled(name, _weights(index, items, kind, largest), "logit per unit of activation")
        for name, items, kind in (
            ("Promotes", logits.promoted, "promoted"),
            ("Suppresses", logits.suppressed, "suppressed"),
        )
    )


def _weights(index: FeatureIndex, items: list[TokenWeight], kind: str, largest: float) -> str:
    texts = [index.vocabulary[item.id] for item in items[:SHOWN]]
    return blocks.token_bars(
        [(text, item.weight) for text, item in zip(texts, items, strict=False)], kind, "+.2f", largest
    )


def matched_labels(index: FeatureIndex, latent: int) -> str:
    """Ground-truth labels that it detects."""
    scores = index.labels(latent)[:5]
    if not scores:
        return ""
    items = [
        Bar(
            f'<span data-tip="precision {s.precision:.2f} · recall {s.recall:.2f}">{escape(s.label)}</span>',
            s.f1,
            f"{s.f1:.2f}",
        )
        for s in scores
    ]
    return blocks.titled("Matches the labels", blocks.bars(items, "labels"), "F1, 1 is a perfect detector")


def relatives(index: FeatureIndex, latent: int, link: Callable[[int], str]) -> str:
    """Latents that write alike, and those that fire on the same tokens; `link` makes a number into HTML."""
    near = [(other.latent, other.cosine) for other in index.neighbours(latent)[:SHOWN]]
    near_lines = [Bar(link(other), cosine, f"{cosine:.2f}") for other, cosine in near]
    with_lines = [
        Bar(f'<span data-tip="both on {other.n_both:,} tokens, {percent(other.share)} of its own">{link(other.latent)}'
            "</span>", other.cosine, f"{other.cosine:.2f}")
        for other in index.coactive(latent)[:SHOWN]
    ]  # fmt: skip
    parts = (
        ("Nearest directions", near_lines, "cosine of decoders"),
        ("Fires together with", with_lines, "cosine of on/off"),
    )
    return "".join(blocks.titled(title, blocks.bars(lines, "near"), aside) for title, lines, aside in parts if lines)


def latent_link(run: Run, number: int) -> str:
    """A link to a latent: its number, and its name or the token that carries most of it."""
    return latent_names.linked(run, number)
