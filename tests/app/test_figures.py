"""What the figures hold; their looks are judged in docs/screenshots."""

from __future__ import annotations

import numpy as np
import pytest

from app import figures
from app.dictionary.spread import summarise
from app.runs.training_curves import thinned


def test_every_axis_says_what_it_counts() -> None:
    for figure in (
        figures.density_histogram([-3, -2, -1], [4, 5]),
        figures.rank_density([1, 10], [0.1, 0.001], law=[0.1, 0.002]),
        figures.training_curve([1, 2], [0.5, 0.25], "FVU", log=True),
        figures.training_curve([1], [None], "FVU", log=True),
        figures.activation_histogram([3, 0, 1], 6.0),
        figures.active_per_token([0, 2, 3]),
        figures.trade_off([figures.Point(4, 0.1, "a", "topk")], "FVU"),
    ):
        assert figure.to_dict()["layout"]["xaxis"]["title"]["text"]
        assert figure.to_dict()["layout"]["yaxis"]["title"]["text"]


def test_activation_histogram_bins_span_zero_to_the_maximum() -> None:
    bars = figures.activation_histogram([3, 0, 1], 6.0).to_dict()["data"][0]
    assert list(bars["x"]) == [1.0, 3.0, 5.0]
    assert list(bars["y"]) == [3, None, 1]  # an empty bin has no bar on a log axis
    assert [list(edges) for edges in bars["customdata"]] == [[0, 2], [2, 4], [4, 6]]


def test_density_summary_counts_the_living_and_the_dead() -> None:
    spread = summarise(np.array([0.0, 0.1, 0.01, 0.01, 0.001]))
    assert (spread.n_live, spread.n_dead, spread.median) == (4, 1, 0.01)
    assert (spread.edges[0], spread.edges[-1]) == (-3.0, -1.0)
    assert sum(spread.counts) == 4
    assert spread.ranks == [1, 2, 3, 4]
    assert spread.densities == [0.1, 0.01, 0.01, 0.001]


def test_density_summary_of_one_and_of_none() -> None:
    assert summarise(np.array([0.01])).counts == [1, 0, 0, 0, 0]
    assert summarise(np.zeros(3)).n_live == 0


def test_the_rank_curve_of_many_latents_stays_small() -> None:
    spread = summarise(np.linspace(1e-6, 0.1, 131_072))
    assert len(spread.ranks) <= 300
    assert (spread.ranks[0], spread.ranks[-1]) == (1, 131_072)


@pytest.mark.parametrize("n", [1, 399, 400, 401, 12_345])
def test_long_logs_are_thinned_to_their_end(n: int) -> None:
    lines = [{"step": step} for step in range(n)]
    kept = thinned(lines)
    assert len(kept) == min(n, 400)
    assert kept[-1] == lines[-1]
    assert kept == sorted(kept, key=lambda line: line["step"])


def test_log_ticks() -> None:
    assert figures._decades(0.001, 10)["ticktext"] == ["0.001", "0.01", "0.1", "1", "10"]
    assert figures._decades(1, 30)["ticktext"][:6] == ["1", "2", "5", "10", "20", "50"]
    assert figures._decades(1e-8, 1e-5)["ticktext"][0] == "10<sup>-8</sup>"


def test_the_front_holds_what_nobody_beats_on_both_axes() -> None:
    points = [
        figures.Point(x, y, name, "") for x, y, name in ((8, 0.1, "a"), (4, 0.3, "b"), (6, 0.4, "c"), (8, 0.2, "d"))
    ]
    assert [point.name for point in figures.undominated(points)] == ["b", "a"]
    assert figures.undominated([]) == []
