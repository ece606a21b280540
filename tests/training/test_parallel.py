"""What so many processes divide, and what they can't."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelab.config import load_config
from saelab.errors import UserError
from saelab.training.config import TrainConfig
from saelab.training.parallel import Layout, ParallelConfig
from saelab.training.team import dealt

ONE = [load_config(TrainConfig, None, {"sae.d_sae": 6, "sae.k": 2, "batch": 4, "tokens": 40, "buffer": 40})]
GRID = ONE * 3


@pytest.mark.parametrize(
    ("given", "ranks", "layout"),
    [
        ({}, 1, Layout()),
        ({"data": 1, "latent": 1}, 1, Layout()),
        ({}, 4, Layout(1, 4)),
        ({"data": 2}, 4, Layout(2, 2)),
        ({"data": 4}, 4, Layout(4, 1)),
        ({"latent": 2}, 6, Layout(3, 2)),
        ({"data": 2, "latent": 3}, 6, Layout(2, 3)),
        ({"sweep": True}, 5, Layout(sweep=5)),
    ],
)
def test_what_is_left_out_is_what_remains(given: dict[str, Any], ranks: int, layout: Layout) -> None:
    assert ParallelConfig(**given).layout(ranks, GRID) == layout


@pytest.mark.parametrize(
    ("given", "ranks", "configs", "sentence"),
    [
        ({"latent": 4}, 1, ONE, r"parallel\.latent = 4 takes 4 processes.* --nproc-per-node 4 -m saelab train"),
        ({"data": 2, "latent": 3}, 1, ONE, r"parallel\.latent = 3 takes 6 processes.* --nproc-per-node 6"),
        ({"data": 3}, 1, ONE, r"parallel\.data = 3 takes 3 processes"),
        (
            {"sweep": True},
            1,
            GRID,
            r"parallel\.sweep spreads runs over processes, and this is one alone; type torchrun",
        ),
        ({"sweep": True}, 2, ONE, r"these settings make one run; give several values"),
        ({"sweep": True, "latent": 2}, 2, GRID, r"give one or the other"),
        ({"latent": 3}, 4, ONE, r"parallel\.latent = 3 can't divide 4 processes"),
        ({"data": 8}, 4, ONE, r"parallel\.data = 8 can't divide 4 processes"),
        ({"data": 2, "latent": 3}, 4, ONE, r"parallel\.data = 2 and parallel\.latent = 3 can't divide 4 processes"),
        ({"data": 5}, 5, ONE, r"batch = 4 is less than a token for each of parallel\.data = 5"),
        ({}, 7, ONE, r"sae\.d_sae = 6 is less than a latent for each of parallel\.latent = 7"),
    ],
)
def test_what_can_not_be(given: dict[str, Any], ranks: int, configs: list[TrainConfig], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ParallelConfig(**given).layout(ranks, configs)


def test_work_is_dealt_so_that_no_rank_has_much_more() -> None:
    assert dealt([1, 8, 2, 4, 3], 2) == [0, 0, 1, 1, 1]  # 8 | 4 + 3 + 2, and the 1 where there is less
    assert dealt([5, 5, 5], 4) == [0, 1, 2]
    assert dealt([100, 1, 1, 1], 2, most=2) == [0, 1, 1, 0]


@given(costs=st.lists(st.integers(0, 50), max_size=12), ranks=st.integers(1, 5))
def test_no_deal_is_worse_than_one_piece_more(costs: list[int], ranks: int) -> None:
    owners = dealt(costs, ranks)
    loads = [sum(c for c, owner in zip(costs, owners, strict=True) if owner == rank) for rank in range(ranks)]
    assert max(loads) - min(loads) <= max(costs, default=0)
    assert sum(loads) == sum(costs)
