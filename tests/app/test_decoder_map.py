"""The map of decoder directions: what the browser is given to draw."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from app.dictionary.decoder_map import LABELS, LEAST_F1, points
from app.dictionary.point_map import Points, Style
from saelab.evaluation.figures.style import GREY
from saelab.features.direction_map import DirectionMap
from saelab.features.index import FeatureIndex


@pytest.fixture
def index(runs: Path) -> FeatureIndex:
    return FeatureIndex(runs / "small" / "features")


@pytest.fixture
def found(index: FeatureIndex) -> DirectionMap:
    """All latents that fire, on a line."""
    rows = index.latents(between={"n_active": (1, float("inf"))})["latent"].to_numpy()
    return DirectionMap(rows, np.stack([rows, -rows], axis=1).astype(float), (0.5, 0.25))


def unpacked(text: str, kind: str) -> list[int]:
    return np.frombuffer(base64.b64decode(text), kind).tolist()


def test_places_are_16_bit_shares_of_the_extent() -> None:
    places = np.array([[0.0, 5.0], [1.0, 5.0], [4.0, 5.0]])  # all at one height
    drawn = Points(places, np.array([0, 1, 1], np.uint8), ["a"] * 3, [7, 8, 9], [Style("red")] * 2, [], [], ("", ""))
    message = drawn.message()
    assert unpacked(message["x"], "<u2") == [0, 16384, 65535]
    assert unpacked(message["y"], "<u2") == [0, 0, 0]
    assert unpacked(message["colour"], "u1") == [0, 1, 1]
    json.dumps(message)  # it travels as that


def test_densities_lie_on_a_logarithmic_scale(index: FeatureIndex, found: DirectionMap) -> None:
    drawn = points(found, index, "density")
    density = index.latents()["density"].to_numpy()[found.latents]
    order = np.argsort(density, kind="stable")
    assert np.all(np.diff(drawn.style[order].astype(int)) >= 0)
    shares, texts = zip(*drawn.ticks, strict=True)
    assert (shares[0], shares[-1]) == (0, 1)
    assert set(texts) <= {"100%", "10%", "1%", "0.1%", "10⁻⁴"}
    assert drawn.axes[0]
    for place in (0, 10):  # a share of the way between two ticks is a share of a decade
        at = (
            (len(drawn.styles) - 1) * (np.log10(density[place]) - np.floor(np.log10(density.min()))) / (len(shares) - 1)
        )
        assert drawn.style[place] == pytest.approx(at, abs=0.51)


def test_labels_have_colours_of_their_own_and_lie_in_front(index: FeatureIndex, found: DirectionMap) -> None:
    drawn = points(found, index, "label")
    best = {row["latent"]: row for row in index.latents().to_pylist()}
    names = dict(drawn.names)
    assert names[0] == "others, or none"
    assert 1 < len(names) <= LABELS + 1
    assert len({drawn.styles[number].colour for number in names}) == len(names)
    assert drawn.styles[0].colour == GREY
    for latent, style in zip(drawn.latents, drawn.style.tolist(), strict=True):
        is_labelled = best[latent]["label"] is not None and best[latent]["f1"] >= LEAST_F1
        assert names[style] == (best[latent]["label"] if is_labelled else "others, or none")
    assert sorted(drawn.latents) == found.latents.tolist()
    assert np.all(np.diff((drawn.style != 0).astype(int)) >= 0)
    at = drawn.latents.index(drawn.latents[-1])
    assert drawn.places[at].tolist() == [drawn.latents[-1], -drawn.latents[-1]]  # each in its own place
    assert not drawn.ticks


def test_what_the_pointer_shows_is_plain_text(index: FeatureIndex, found: DirectionMap) -> None:
    drawn = points(found, index, "density")
    told = dict(zip(drawn.latents, drawn.texts, strict=True))
    hostile = next(row for row in index.latents().to_pylist() if row["top_token"] == 0)  # <script>…
    assert "‘<script>document.title='owned'</script>’" in told[hostile["latent"]].splitlines()[2]
    assert "&lt;" not in told[hostile["latent"]]  # the browser sets it as text, not as HTML
    assert not any("\u202e" in text for text in drawn.texts)
