"""The table of all latents: what the address may ask for, what is found, what is downloaded."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from app.dictionary.latent_filter import STATISTICS, UNDERUSED_SHARE, Filter, underused
from app.dictionary.latent_table import COLUMNS, as_csv, as_parquet
from app.dictionary.starting_points import _enough, choose
from app.table import Order, Page
from saelab.evaluation import sparsity
from saelab.evaluation.report import ZipfLaw
from saelab.features.index import FeatureIndex

BY_DENSITY = Order("density", descending=True)
LAW = ZipfLaw(
    s=0.1, q=0.0, intercept=-2.0, s_error=0, q_error=0, intercept_error=0, r_squared=1, n_latents=90
)  # so flat that the rare ones fall below it


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
    assert Page.from_address(query, 1000, 25).number == page


def test_pages_end_with_the_rows() -> None:
    assert Page.from_address({"page": "999"}, 96, 25).rows == slice(75, 100)
    assert Page.from_address({}, 0, 25).rows == slice(0, 25)
    assert "<a" not in Page.from_address({}, 25, 25).pager("runs", {})
    assert "1–25 of 26" in Page.from_address({}, 26, 25).pager("runs", {})


def select(
    index: FeatureIndex, order: Order = BY_DENSITY, word: str = "", working: str = "all", law: ZipfLaw | None = None,
    **bounds: tuple[float, float],
) -> list[dict[str, Any]]:  # fmt: skip
    return Filter(word, working, bounds).select(index, order, law).to_pylist()


def test_select_sorts_with_unknown_values_last(index: FeatureIndex) -> None:
    means = [row["mean_activation"] for row in select(index, Order("mean_activation", True))]
    known = [mean for mean in means if mean is not None]
    assert known == sorted(known, reverse=True)
    assert means[len(known) :] == [None] * (96 - len(known))
    assert len(known) < 96  # some are dead here


def test_select_filters_by_word(index: FeatureIndex) -> None:
    for row in select(index, word=" SAID "):
        tokens = [index.vocabulary[row[c]] for c in ("top_token", "promoted") if row[c] is not None]
        assert any("said" in token for token in tokens)
    assert any(row["label"] == "place" for row in select(index, word="plac"))
    assert select(index, word="p.ac") == []  # a word, not a pattern
    named = Filter("speech", "all", {}).select(index, BY_DENSITY, None, {7: "Direct Speech", 8: "other"})
    assert named["latent"].to_pylist() == [7]


@pytest.mark.parametrize("column", ["density", *STATISTICS])
def test_select_filters_on_every_statistic(index: FeatureIndex, column: str) -> None:
    everything = [row[column] for row in select(index) if row[column] is not None]
    middle = sorted(everything)[len(everything) // 2]
    chosen = Filter("", "all", {column: (middle, float("inf"))}).select(index, BY_DENSITY, None)
    found = chosen[column].to_pylist()
    assert sorted(found) == sorted(value for value in everything if value >= middle)


def test_select_by_how_they_work(index: FeatureIndex) -> None:
    live, dead = select(index, working="live"), select(index, working="dead")
    assert len(live) + len(dead) == 96
    assert all(row["n_active"] > 0 for row in live)
    assert all(row["n_active"] == 0 for row in dead)
    assert select(index, working="dead", n_active=(1.0, float("inf"))) == []
    starved = {row["latent"] for row in select(index, working="underused", law=LAW)}
    flags = underused(index.latents()["density"].to_numpy(), LAW)
    assert starved == set(np.flatnonzero(flags))


def test_underused_is_below_half_of_what_the_law_expects_of_the_rank() -> None:
    law = LAW.model_copy(update={"s": 1.0, "q": 0.0, "intercept": math.log(0.4)})  # 0.4, 0.2, 0.1333, 0.1
    assert underused(np.array([0.0, 0.07, 0.39, 0.09, 0.04]), law).tolist() == [False, False, False, True, True]
    assert not underused(np.array([0.1, 0.001]), law.model_copy(update={"s": None})).any()
    assert UNDERUSED_SHARE == sparsity.UNDERUSED_SHARE


def test_csv_spells_tokens_out(index: FeatureIndex) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(index.latents(), index.vocabulary).decode())))
    assert len(rows) == 96
    assert rows[0]["promoted"] == index.vocabulary[1]
    assert rows[95]["top_token"] == ""  # dead: nothing to spell


def test_parquet_holds_the_same(index: FeatureIndex) -> None:
    read = pyarrow.parquet.read_table(io.BytesIO(as_parquet(index.latents(), index.vocabulary)))
    assert read["promoted"][0].as_py() == index.vocabulary[1]
    assert read["density"].equals(index.latents()["density"])


@pytest.mark.parametrize(("words", "characters", "count"), [
    (["a", "b", "c", "d"], 3, 3), (["word", " word", " word"], 5, 2), (["a"], 9, 1), ([], 9, 0),
    (["", "", "a", "b"], 1, 3),
])  # fmt: skip
def test_a_glimpse_has_enough_characters_whatever_the_tokens_are(words: list[str], characters: int, count: int) -> None:
    assert _enough(words, characters) == count


def test_starting_points_are_distinct_and_say_why(index: FeatureIndex) -> None:
    points = choose(index, shown=6)
    assert len({point.latent for point in points}) == len(points) > 0
    for point in points:
        assert index.latent(point.latent).n_active >= 20
        assert point.reason.startswith("detects") or point.reason.startswith("fires on ‘")
