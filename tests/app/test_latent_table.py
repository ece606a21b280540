"""The table of all latents: what the address may ask for, what is found, what is downloaded."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from app.latent_table import COLUMNS, as_csv, page_number, select
from app.starting_points import choose
from app.table import Order
from saelab.features.index import FeatureIndex

BY_DENSITY = Order("density", descending=True)


@pytest.fixture
def index(runs: Path) -> FeatureIndex:
    return FeatureIndex(runs / "small" / "features")


@pytest.mark.parametrize(
    ("query", "order", "page"),
    [
        ({}, Order("density", True), 0),
        ({"sort": "latent", "order": "up", "page": "3"}, Order("latent", False), 3),
        ({"sort": "density; DROP TABLE", "order": "sideways", "page": "-1"}, Order("density", True), 0),
        ({"sort": "promoted", "page": "99999999"}, Order("density", True), 0),
    ],
)
def test_the_address_is_checked(query: dict[str, str], order: Order, page: int) -> None:
    assert Order.from_address(query, COLUMNS, "density") == order
    assert page_number(query) == page


def test_select_sorts_with_unknown_values_last(index: FeatureIndex) -> None:
    means = select(index, Order("mean_activation", True), "", (0.0, 1.0))["mean_activation"].to_pylist()
    known = [mean for mean in means if mean is not None]
    assert known == sorted(known, reverse=True)
    assert means[len(known) :] == [None] * (96 - len(known))
    assert len(known) < 96  # some are dead here


def test_select_filters_by_density_and_by_word(index: FeatureIndex) -> None:
    everything = select(index, BY_DENSITY, "", (0.0, 1.0))
    rare = select(index, BY_DENSITY, "", (0.0, 0.01))
    assert 0 < rare.num_rows < everything.num_rows == 96
    assert max(rare["density"].to_pylist()) <= 0.01
    for row in select(index, BY_DENSITY, " SAID ", (0.0, 1.0)).to_pylist():
        tokens = [index.vocabulary[row[c]] for c in ("top_token", "promoted") if row[c] is not None]
        assert any("said" in token for token in tokens)
    labelled = select(index, BY_DENSITY, "plac", (0.0, 1.0)).to_pylist()
    assert any(row["label"] == "place" for row in labelled)


def test_csv_spells_tokens_out(index: FeatureIndex) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(index.latents(), index.vocabulary).decode())))
    assert len(rows) == 96
    assert rows[0]["promoted"] == index.vocabulary[1]
    assert rows[95]["top_token"] == ""  # dead: nothing to spell


def test_starting_points_are_distinct_and_say_why(index: FeatureIndex) -> None:
    points = choose(index, shown=6)
    assert len({point.latent for point in points}) == len(points) > 0
    for point in points:
        assert index.latent(point.latent).n_active >= 20
        assert point.reason.startswith("detects") or point.reason.startswith("fires on ‘")
