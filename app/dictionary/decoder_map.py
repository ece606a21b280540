"""The map of decoder directions: a point a latent, coloured by how often it fires or by what it detects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import streamlit as st

from app import address, figures, links, reading
from app.notation import percent, plain
from app.tokens import quoted
from app.workspace import Run
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.evaluation.figures.style import COLOURS, GREY, label
from saelab.features.direction_map import DirectionMap, Method, direction_map, methods, sample
from saelab.features.index import FeatureIndex

COLOUR, METHOD = "colour", "map"  # in the address
COLOURINGS: Final = {"density": "Density", "label": "Best label"}
METHODS: Final[dict[Method, str]] = {"pca": "PCA", "umap": "UMAP"}
LABELS: Final = 8  # with a colour of their own; the others share the grey
LEAST_F1: Final = 0.3  # below it a latent hardly detects its best label


def decoder_map(run: Run, index: FeatureIndex) -> None:
    """The section of the overview."""
    if not DictionaryPaths(run.paths.dictionary).weights.is_file():
        return
    st.subheader("Map of decoder directions")
    with st.container(horizontal=True, gap="large"):
        colouring = _control("Colour", COLOUR, {name: COLOURINGS[name] for name in _colourings(run)})
        method = cast("Method", _control("Layout", METHOD, {name: METHODS[name] for name in methods()}))
    try:
        with st.spinner("Laying out the directions", show_time=False):
            found = _map(str(run.paths.dictionary), reading.weights_stamp(run), method, index, reading.index_stamp(run))
    except (UserError, OSError) as problem:  # the rest of the page needs no weights
        st.caption(f"There is no map: {plain(str(problem))}")
        return
    figure = _figure(found, index, colouring, reading.index_stamp(run))
    chosen = st.plotly_chart(
        figure, config=figures.CHART, key=f"decoder_map_{colouring}_{method}", on_select="rerun",
        selection_mode="points",
    )  # fmt: skip
    st.caption(_in_words(found, index, colouring, run))
    for point in chosen["selection"]["points"]:
        links.go(links.LATENT, run=run.name, latent=str(point["customdata"][0]))


def _colourings(run: Run) -> list[str]:
    return [name for name in COLOURINGS if name == "density" or reading.labels(run)]


def _control(title: str, name: str, options: Mapping[str, str]) -> str:
    """One of `options`, named in the address; no control where there is no choice."""
    first = next(iter(options))
    return address.choice(title, name, options, first) if len(options) > 1 else first


@st.cache_resource(max_entries=16, show_spinner=False)
def _map(dictionary: str, weights: int, method: Method, _index: FeatureIndex, stamp: str) -> DirectionMap:
    table = _index.latents()
    live = table["latent"].to_numpy()[table["n_active"].to_numpy() > 0]
    return direction_map(Path(dictionary), sample(live), method)


@st.cache_resource(max_entries=16, show_spinner=False)
def _figure(_found: DirectionMap, _index: FeatureIndex, colouring: str, stamp: str) -> go.Figure:
    rows = _index.latents().take(pa.array(_found.latents))
    texts = [_hover(row, _index.vocabulary) for row in rows.to_pylist()]
    if colouring == "label":
        figure = _by_label(_found, rows, texts)
    else:
        figure = _by_density(_found, rows["density"].to_numpy(), texts)
    figure.update_xaxes(title="first component" if _found.explained else "", showticklabels=False, zeroline=False)
    figure.update_yaxes(title="second component" if _found.explained else "", showticklabels=False, zeroline=False)
    figures.laid_out(figure, height=520)
    return figure.update_layout(hovermode="closest", clickmode="event+select", showlegend=colouring == "label")


def _by_density(found: DirectionMap, density: np.ndarray, texts: list[str]) -> go.Figure:
    exponents = np.log10(density)
    ticks = np.arange(np.floor(exponents.min()), np.ceil(exponents.max()) + 1)
    bar = {
        "title": {"text": "density"}, "tickvals": ticks, "ticktext": [figures.power(tick) for tick in ticks],
        "thickness": 12, "outlinewidth": 0,
    }  # fmt: skip
    marker = {"size": 6, "color": exponents.astype(np.float32), "colorscale": "Viridis", "colorbar": bar}
    return go.Figure(_points(found, np.arange(len(texts)), texts, marker))


def _by_label(found: DirectionMap, rows: pa.Table, texts: list[str]) -> go.Figure:
    best = [
        name if name is not None and f1 >= LEAST_F1 else None
        for name, f1 in zip(rows["label"].to_pylist(), rows["f1"].to_pylist(), strict=True)
    ]
    shown = [name for name, _ in Counter(name for name in best if name is not None).most_common(LABELS)]
    groups = {"others, or none": [place for place, name in enumerate(best) if name not in shown]}
    groups |= {name: [place for place, other in enumerate(best) if other == name] for name in shown}
    figure = go.Figure()
    for number, (name, places) in enumerate(groups.items()):
        marker = {"size": 6 if number else 4, "color": COLOURS[number - 1] if number else GREY}
        if not number:
            marker["opacity"] = 0.35
        figure.add_trace(_points(found, np.array(places, int), texts, marker, label(name)))
    return figure


def _points(found: DirectionMap, at: np.ndarray, texts: list[str], marker: dict, name: str | None = None) -> go.Scatter:
    return go.Scatter(
        x=found.places[at, 0].astype(np.float32), y=found.places[at, 1].astype(np.float32), mode="markers",
        marker=marker, name=name, text=[texts[place] for place in at],
        customdata=[[latent] for latent in found.latents[at].tolist()],  # of an array, a click would not say the number
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _hover(row: dict, vocabulary: list[str]) -> str:
    lines = [f"latent {row['latent']}", f"fires on {percent(row['density'])} of tokens"]
    if row["top_token"] is not None:
        lines.append(f"most on {label(quoted(vocabulary[row['top_token']]))}")
    if row["label"] is not None:
        lines.append(f"best label {label(row['label'])}, F1 {row['f1']:.2f}")
    return "<br>".join(lines)


def _in_words(found: DirectionMap, index: FeatureIndex, colouring: str, run: Run) -> str:
    n_live = reading.n_live(run)
    drawn = f"{len(found.latents):,} of the {n_live:,}" if len(found.latents) < n_live else f"All {n_live:,}"
    said = f"{drawn} latents that fire" + (", drawn at random" if len(found.latents) < n_live else "")
    if found.explained:
        said += f". The two axes hold {percent(sum(found.explained))} of the directions' variance"
    if colouring == "label":
        said += f". Coloured: the {LABELS} labels that most latents detect best, with an F1 of {LEAST_F1} or more"
    return f"{said}. A click opens the latent."
