"""Where a newcomer begins: a handful of latents that are easy to understand, each with a glimpse of its text.

Chosen from the index alone: latents that detect a ground-truth label well, one per label; then latents whose activation
sits on one word; then latents that fire on several words but promote one, whose pattern is in the context.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from app import links, reading, tokens
from app.notation import percent
from app.tokens import ShownToken
from app.workspace import Run
from saelab.features.index import Example, FeatureIndex

SHOWN = 9
BY_LABEL = 5  # of the cards shown, at most
LEAST_F1 = 0.6
LEAST_SHARE = 0.3  # of the summed activation, on one token
LEAST_ACTIVE = 20  # tokens; below that a pattern can't be told from chance
RARE_ENOUGH = 0.03  # density; what fires on every thirtieth token seldom has one meaning
BEFORE, AFTER = 9, 4  # tokens around the peak
PASSAGES = 2


@dataclass(frozen=True)
class StartingPoint:
    """A latent, and in a few words why it is here."""

    latent: int
    reason: str


def starting_points(run: Run, index: FeatureIndex) -> None:
    """The section of the overview: cards that link to the latents' pages."""
    html = _cards(run.name, index, reading.index_stamp(run))
    if html:
        st.subheader("Latents to start with")
        st.html(html)


@st.cache_data(max_entries=64, show_spinner=False)
def _cards(run_name: str, _index: FeatureIndex, stamp: str) -> str:
    cards = "".join(_card(run_name, _index, point) for point in choose(_index))
    return f'<div class="sl-cards">{cards}</div>' if cards else ""


def choose(index: FeatureIndex, shown: int = SHOWN) -> list[StartingPoint]:
    """The latents to show, most telling first within each kind; no word and no label twice."""
    labelled = _distinct(_best(index, "f1", LEAST_F1), "label", BY_LABEL, set(), index.vocabulary)
    points = [StartingPoint(row["latent"], f"detects “{row['label']}”, F1 {row['f1']:.2f}") for row in labelled]
    seen = {row["latent"] for row in labelled}
    worded = _best(index, "top_token_share", LEAST_SHARE)
    for row in _distinct(worded, "top_token", shown - len(points), seen, index.vocabulary):
        word = tokens.quoted(index.vocabulary[row["top_token"]])
        points.append(StartingPoint(row["latent"], f"{percent(row['top_token_share'])} of it on {word}"))
    return points


def _best(index: FeatureIndex, column: str, least: float) -> list[dict[str, Any]]:
    """Rows with at least `least` in `column`, highest first; a few hundred are plenty to choose from."""
    bounds = {"n_active": (LEAST_ACTIVE, index.n_tokens), "density": (0.0, RARE_ENOUGH), column: (least, 1.0)}
    return index.latents(sort=column, descending=True, limit=400, between=bounds).to_pylist()


def _distinct(
    rows: list[dict[str, Any]], column: str, count: int, seen: set[int], vocabulary: list[str]
) -> list[dict[str, Any]]:
    """The first `count` rows with a value of `column` not had before; tokens must read as words."""
    had: set[str] = set()
    found: list[dict[str, Any]] = []
    for row in rows:
        value = row[column]
        key = vocabulary[value].strip().lower() if column == "top_token" else value
        readable = column != "top_token" or key.isalpha()
        if readable and key not in had and row["latent"] not in seen and len(found) < count:
            had.add(key)
            found.append(row)
    return found


def _card(run_name: str, index: FeatureIndex, point: StartingPoint) -> str:
    found = index.examples(point.latent, quantile=0)[:PASSAGES]
    maximum = max((example.value for example in found), default=1.0)
    text = "".join(f"<p>{_glimpse(index, example, maximum)}</p>" for example in found)
    promoted = index.logits(point.latent).promoted[:3]
    chips = "".join(tokens.chip(index.vocabulary[item.id]) for item in promoted)
    inner = (
        f'<div class="sl-card-head"><b>Latent {point.latent}</b><span>{escape(point.reason)}</span></div>{text}'
        f'<div class="sl-chips"><span class="sl-faint">promotes</span>{chips}</div>'
    )
    return links.anchor(inner, links.LATENT, "sl-card", run=run_name, latent=point.latent)


def _glimpse(index: FeatureIndex, example: Example, maximum: float) -> str:
    first = max(example.focus - BEFORE, 0)
    part = range(first, min(example.focus + AFTER + 1, len(example.tokens)))
    shown = [ShownToken(index.vocabulary[example.tokens[i]], float(example.values[i])) for i in part]
    return tokens.passage(shown, maximum, tips=False)
