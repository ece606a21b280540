"""The map of decoder directions: a point a latent, coloured by how often it fires or by what it detects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import streamlit as st
from jaxtyping import Float, UInt8
from plotly.colors import sample_colorscale

from app import address, links, reading
from app.dictionary.point_map import Points, Style, point_map
from app.notation import percent, plain
from app.part import part
from app.tokens import quoted
from app.workspace import Run
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.evaluation.figures.style import COLOURS, GREY
from saelab.features.direction_map import DirectionMap, Method, direction_map, methods, sample
from saelab.features.index import FeatureIndex

COLOUR, METHOD = "colour", "map"  # in the address
COLOURINGS: Final = {"density": "Density", "label": "Best label"}
METHODS: Final[dict[Method, str]] = {"pca": "PCA", "umap": "UMAP"}
OF_LABELS: Final = [colour for colour in COLOURS if colour != GREY]  # which the others share
LABELS: Final = len(OF_LABELS)
LEAST_F1: Final = 0.3  # below it a latent hardly detects its best label
SCALE: Final = [Style(str(shade), alpha=0.9) for shade in sample_colorscale("Viridis", 64)]
RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@part
def decoder_map(run: Run) -> None:
    """The section of the overview."""
    if not DictionaryPaths(run.paths.dictionary).weights.is_file():
        return
    index = reading.feature_index(run)
    st.subheader("Map of decoder directions")
    with st.container(horizontal=True, gap="large"):
        colouring = _control("Colour", COLOUR, {name: COLOURINGS[name] for name in _colourings(run)})
        method = cast("Method", _control("Layout", METHOD, {name: METHODS[name] for name in methods()}))
    of = f"{run.paths.dictionary} {reading.weights_stamp(run)} {method} {reading.index_stamp(run)}"
    try:
        with st.spinner("Laying out the directions", show_time=False):
            found = _map(run.paths.dictionary, method, index, of)
    except (UserError, OSError) as problem:  # the rest of the page needs no weights
        st.caption(f"There is no map: {plain(str(problem))}")
        return
    clicked = point_map(_message(found, index, colouring, of), of, colouring, "Map of decoder directions")
    st.caption(_in_words(found, index, colouring, run))
    if clicked is not None:
        links.go(links.LATENT, run=run.name, latent=str(clicked))


def _colourings(run: Run) -> list[str]:
    return [name for name in COLOURINGS if name == "density" or reading.labels(run)]


def _control(title: str, name: str, options: Mapping[str, str]) -> str:
    """One of `options`, named in the address; no control where there is no choice."""
    first = next(iter(options))
    return address.choice(title, name, options, first) if len(options) > 1 else first


@st.cache_resource(max_entries=16, show_spinner=False)
def _map(_dictionary: Path, _method: Method, _index: FeatureIndex, of: str) -> DirectionMap:
    table = _index.latents()
    live = table["latent"].to_numpy()[table["n_active"].to_numpy() > 0]
    return direction_map(_dictionary, sample(live), _method)


@st.cache_resource(max_entries=16, show_spinner=False)
def _message(_found: DirectionMap, _index: FeatureIndex, colouring: str, of: str) -> dict[str, Any]:
    return points(_found, _index, colouring).message()


def points(found: DirectionMap, index: FeatureIndex, colouring: str) -> Points:
    """The latents of the map, coloured by one of `COLOURINGS`."""
    rows = index.latents().take(pa.array(found.latents))
    if colouring == "label":
        style, styles, names = _by_label(rows)
        order, ticks = np.argsort(style != 0, kind="stable"), []  # those with a label in front
    else:
        style, ticks = _by_density(rows["density"].to_numpy())
        styles, names, order = SCALE, [], np.arange(len(style))
    texts = [_hover(row, index.vocabulary) for row in rows.to_pylist()]
    return Points(
        found.places[order], style[order], [texts[place] for place in order], found.latents[order].tolist(), styles,
        ticks, names, ("first component", "second component") if found.explained else ("", ""),
    )  # fmt: skip


def _by_density(density: Float[np.ndarray, "n"]) -> tuple[UInt8[np.ndarray, "n"], list[tuple[float, str]]]:
    """Each one's place on the scale of colours, which is logarithmic, and the scale's ticks at powers of ten."""
    exponents = np.log10(density)
    low, high = np.floor(exponents.min()), np.ceil(exponents.max())
    high = max(high, low + 1)
    share = (exponents - low) / (high - low)
    ticks = [((tick - low) / (high - low), _power(int(tick))) for tick in np.arange(low, high + 1)]
    return np.rint(share * (len(SCALE) - 1)).astype(np.uint8), ticks


def _power(exponent: int) -> str:
    return f"{100 * 10.0**exponent:g}%" if exponent > -4 else f"10⁻{str(-exponent).translate(RAISED)}"


def _by_label(rows: pa.Table) -> tuple[UInt8[np.ndarray, "n"], list[Style], list[tuple[int, str]]]:
    """Each one's style: 0 for none of the labels shown, then theirs in turn, with the legend."""
    best = [
        name if name is not None and f1 >= LEAST_F1 else None
        for name, f1 in zip(rows["label"].to_pylist(), rows["f1"].to_pylist(), strict=True)
    ]
    shown = [name for name, _ in Counter(name for name in best if name is not None).most_common(LABELS)]
    number = {name: place for place, name in enumerate(shown, 1)}
    styles = [Style(GREY, 2.0, 0.35), *(Style(shade) for shade, _ in zip(OF_LABELS, shown, strict=False))]
    style = np.array([number.get(name, 0) for name in best], np.uint8)
    return style, styles, [*((place, name) for name, place in number.items()), (0, "others, or none")]


def _hover(row: dict, vocabulary: list[str]) -> str:
    lines = [f"latent {row['latent']}", f"fires on {percent(row['density'])} of tokens"]
    if row["top_token"] is not None:
        lines.append(f"most on {quoted(vocabulary[row['top_token']])}")
    if row["label"] is not None:
        lines.append(f"best label {row['label']}, F1 {row['f1']:.2f}")
    return "\n".join(lines)


def _in_words(found: DirectionMap, index: FeatureIndex, colouring: str, run: Run) -> str:
    n_live = reading.n_live(run)
    drawn = f"{len(found.latents):,} of the {n_live:,}" if len(found.latents) < n_live else f"All {n_live:,}"
    said = f"{drawn} latents that fire" + (", drawn at random" if len(found.latents) < n_live else "")
    if found.explained:
        said += f". The two axes hold {percent(sum(found.explained))} of the directions' variance"
    if colouring == "label":
        said += f". Coloured: the labels that most latents detect best, {LABELS} at most, with F1 ≥ {LEAST_F1}"
    return f"{said}. A click opens the latent, dragging zooms in, a double click shows all again."
