"""Beside the examples: the tokens that carry a latent, what it promotes and suppresses, its values, its relatives."""

from __future__ import annotations

from html import escape

import streamlit as st

from app import blocks, figures, links, reading
from app.blocks import Bar
from app.notation import percent
from app.tokens import alone
from app.workspace import Run
from saelab.features.index import FeatureIndex, LatentStatistics, TokenWeight

SHOWN = 8  # lines of a list


def portrait(run: Run, index: FeatureIndex, statistics: LatentStatistics) -> None:
    """All of it, in the order of use; two pieces of HTML with the histogram between them."""
    st.html(_carried(index, statistics) + _effects(index, statistics.latent))
    if statistics.n_active:
        st.html('<h4 class="sl-title">Activations<small>tokens by value, counts on a log scale</small></h4>')
        figure = figures.activation_histogram(statistics.histogram.tolist(), statistics.max_activation or 1.0)
        st.plotly_chart(figure, config=figures.CHART, key="histogram")
    st.html(_labels(index, statistics.latent) + _relatives(run, index, statistics.latent))


def _carried(index: FeatureIndex, statistics: LatentStatistics) -> str:
    if not statistics.n_active:
        return ""
    texts = [index.vocabulary[i] for i in statistics.top_tokens[:SHOWN]]
    items = [
        Bar(alone(text), share, percent(share)) for text, share in zip(texts, statistics.top_token_share, strict=False)
    ]
    return blocks.titled("Fires on", blocks.bars(items, "mass"), "share of its summed activation")


def _effects(index: FeatureIndex, latent: int) -> str:
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


def _labels(index: FeatureIndex, latent: int) -> str:
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


def _relatives(run: Run, index: FeatureIndex, latent: int) -> str:
    near = [(other.latent, other.cosine) for other in index.neighbours(latent)[:SHOWN]]
    with_it = [(other.latent, other.cosine) for other in index.coactive(latent)[:SHOWN]]
    return _latents(run, index, "Nearest directions", near, "cosine of decoders") + _latents(
        run, index, "Fires together with", with_it, "cosine of on/off"
    )


def _latents(run: Run, index: FeatureIndex, title: str, items: list[tuple[int, float]], aside: str) -> str:
    if not items:
        return ""
    lines = [Bar(latent_link(run, number), cosine, f"{cosine:.2f}") for number, cosine in items]
    return blocks.titled(title, blocks.bars(lines, "near"), aside)


def latent_link(run: Run, number: int) -> str:
    """A link to a latent: its number, and the token that carries most of it."""
    word = reading.top_tokens(run).get(number)
    aside = f' <span class="sl-faint">{alone(word)}</span>' if word is not None else ""
    return links.anchor(f"{number}{aside}", links.LATENT, run=run.name, latent=number)
