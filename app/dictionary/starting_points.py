"""Where a newcomer begins: a handful of latents that are easy to understand, each with a glimpse of its text.

Chosen from the index alone: first latents that detect a ground-truth label well, one per label; then, in turn, latents
whose activation sits almost wholly on one word, mostly on one, and on several, the strongest of each kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

import streamlit as st

from app import links, naming, reading, tokens
from app.tokens import ShownToken
from app.workspace import Run
from saelab.features.index import Example, FeatureIndex

SHOWN = 9
BY_LABEL = 5  # of the cards shown, at most
LEAST_F1 = 0.6
SHARES = ((0.8, 1.0), (0.5, 0.8), (0.25, 0.5))  # of the summed activation, on one token: the three kinds
WORDS = 3  # named on a card
LEAST_ACTIVE = 20  # tokens; below that a pattern can't be told from chance
RARE_ENOUGH = 0.03  # density; what fires on every thirtieth token seldom has one meaning
BEFORE, AFTER = 45, 20  # characters around the peak, at least: tokens may be words or single letters
PASSAGES = 2


@dataclass(frozen=True)
class StartingPoint:
    """A latent, and in a few words why it is here."""

    latent: int
    reason: str


def starting_points(run: Run, index: FeatureIndex) -> None:
    """The section of the overview: cards that link to the latents' pages."""
    html = _cards(run, index, reading.index_stamp(run), tuple(naming.names(run).items()))
    if html:
        st.subheader("Latents to start with")
        st.html(html)


@st.cache_resource(max_entries=64, show_spinner=False)
def _cards(_run: Run, _index: FeatureIndex, stamp: str, names: tuple[tuple[int, str], ...]) -> str:
    cards = "".join(_card(_run, _index, point) for point in choose(_index))
    return f'<div class="sl-cards">{cards}</div>' if cards else ""


def choose(index: FeatureIndex, shown: int = SHOWN) -> list[StartingPoint]:
    """The latents to show; no label and no word twice."""
    chosen = _distinct(_best(index, "f1", "f1", (LEAST_F1, 1.0)), "label", set(), index.vocabulary)[:BY_LABEL]
    points = [StartingPoint(row["latent"], f"detects “{row['label']}”, F1 {row['f1']:.2f}") for row in chosen]
    seen = {row["latent"] for row in chosen}
    kinds = [_best(index, "mean_activation", "top_token_share", share) for share in SHARES]
    in_turn = [row for rows in itertools.zip_longest(*kinds) for row in rows if row is not None]
    for row in _distinct(in_turn, "top_token", seen, index.vocabulary)[: shown - len(points)]:
        points.append(StartingPoint(row["latent"], _words(index, row["latent"])))
    return points


def _words(index: FeatureIndex, latent: int) -> str:
    """The tokens that carry most of the latent, as far as they carry a tenth of what the first does."""
    statistics = index.latent(latent)
    top = list(zip(statistics.top_tokens, statistics.top_token_share, strict=True))[:WORDS]
    words = [tokens.quoted(index.vocabulary[id_].strip()) for id_, share in top if share > top[0][1] / 10]
    return f"fires on {', '.join(dict.fromkeys(words))}"


def _best(index: FeatureIndex, sort: str, column: str, between: tuple[float, float]) -> list[dict[str, Any]]:
    """Rows with `column` in a range, highest first by `sort`; a few hundred are plenty to choose from."""
    bounds = {"n_active": (LEAST_ACTIVE, index.n_tokens), "density": (0.0, RARE_ENOUGH), column: between}
    return index.latents(sort=sort, descending=True, limit=400, between=bounds).to_pylist()


def _distinct(rows: list[dict[str, Any]], column: str, seen: set[int], vocabulary: list[str]) -> list[dict[str, Any]]:
    """Rows with a value of `column` not had before, and not of latents in `seen`; tokens must read as words."""
    had: set[str] = set()
    found: list[dict[str, Any]] = []
    for row in rows:
        key = vocabulary[row[column]].strip().lower() if column == "top_token" else row[column]
        readable = column != "top_token" or (key.isalpha() and len(key) > 1)
        if readable and key not in had and row["latent"] not in seen:
            had.add(key)
            found.append(row)
    return found


def _card(run: Run, index: FeatureIndex, point: StartingPoint) -> str:
    found = index.examples(point.latent, quantile=0)[:PASSAGES]
    maximum = max((example.value for example in found), default=1.0)
    text = "".join(f"<p>{_glimpse(index, example, maximum)}</p>" for example in found)
    promoted = index.logits(point.latent).promoted[:3]
    chips = "".join(tokens.chip(index.vocabulary[item.id]) for item in promoted)
    name = naming.called(run, point.latent)
    given = f' <span class="sl-given">{escape(name)}</span>' if name is not None else ""
    inner = (
        f'<div class="sl-card-head"><b>Latent {point.latent}{given}</b><span>{escape(point.reason)}</span></div>{text}'
        f'<div class="sl-chips"><span class="sl-faint">promotes</span>{chips}</div>'
    )
    return links.anchor(inner, links.LATENT, "sl-card", run=run.name, latent=point.latent)


def _glimpse(index: FeatureIndex, example: Example, maximum: float) -> str:
    words = [index.vocabulary[id_] for id_ in example.tokens]
    first = example.focus - _enough(reversed(words[: example.focus]), BEFORE)
    last = example.focus + _enough(words[example.focus + 1 :], AFTER)
    shown = [ShownToken(words[i], float(example.values[i])) for i in range(first, last + 1)]
    return tokens.passage(shown, maximum, tips=False)


def _enough(words: Iterable[str], characters: int) -> int:
    """How many of the words it takes to have so many characters; all where they have fewer."""
    count = 0
    for word in words:
        if characters <= 0:
            break
        characters -= len(word)
        count += 1
    return count
