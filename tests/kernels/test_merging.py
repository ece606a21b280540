"""Selections put together from the parts of several ranks, against the whole; one process plays all ranks."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saelab.kernels.keys import lowest, ordered
from saelab.kernels.merging import winners
from saelab.kernels.radix import threshold

UNTIMED = settings(deadline=None)
NAMED = [-torch.inf, -3.0, -0.0, 0.0, 0.5, 3.0, torch.inf, torch.nan]
DTYPES = st.sampled_from([torch.float32, torch.float64])


@st.composite
def scores(draw: st.DrawFn, least: int = 0, most: int = 30) -> Tensor:
    """Mostly ties."""
    numbers = draw(st.lists(st.sampled_from(NAMED) | st.floats(width=32), min_size=least, max_size=most))
    return torch.tensor(numbers, dtype=torch.float64).to(draw(DTYPES))


@UNTIMED
@given(scores(least=1))
def test_keys_have_the_order_of_their_scores(numbers: Tensor) -> None:
    """Also among themselves: a stable sort leaves equals in place, so that the orders agree only if the ties do."""
    keys = ordered(numbers)
    assert keys.min() > lowest(keys)
    by_keys, by_scores = (torch.sort(of, descending=True, stable=True).indices.tolist() for of in (keys, numbers))
    assert by_keys == by_scores


def test_keys_of_narrow_scores_are_those_of_fp32() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        numbers = torch.tensor(NAMED, dtype=dtype)
        assert torch.equal(ordered(numbers), ordered(numbers.float()))


def fill(keys: Tensor, places: int) -> Tensor:
    return torch.cat([keys, keys.new_full((places - len(keys),), lowest(keys))])


@UNTIMED
@given(st.data(), st.integers(1, 4))
def test_winners_of_segments(data: st.DataObject, ranks: int) -> None:
    """Every segment is cut in parts of any length, none included; of its part a rank offers the best."""
    dtype, offers, expected, budgets = data.draw(DTYPES), [[] for _ in range(ranks)], [[] for _ in range(ranks)], []
    for _ in range(data.draw(st.integers(0, 4), "segments")):
        budget = data.draw(st.integers(0, 6), "budget")
        whole = ordered(data.draw(scores()).to(dtype))
        best = torch.zeros(len(whole), dtype=torch.bool)
        best[torch.sort(whole, descending=True, stable=True).indices[:budget]] = True
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), min_size=ranks - 1, max_size=ranks - 1)))
        for rank, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(whole)], strict=True)):
            part, wins = whole[start:stop], best[start:stop]
            local = torch.sort(torch.sort(part, descending=True, stable=True).indices[:budget]).values
            offers[rank].append(fill(part[local], budget))
            expected[rank] += wins[local].tolist() + [None] * (budget - len(local))
        budgets.append(budget)
    parts = torch.stack([torch.cat([ordered(torch.zeros(0, dtype=dtype)), *offer]) for offer in offers])
    for rank in range(ranks):
        found = winners(parts, torch.tensor(budgets, dtype=torch.int64), rank).tolist()
        assert [win for win, wanted in zip(found, expected[rank], strict=True) if wanted is not None] == [
            wanted for wanted in expected[rank] if wanted is not None
        ]


@UNTIMED
@given(scores(), st.integers(0, 40))
def test_threshold(numbers: Tensor, budget: int) -> None:
    keys = ordered(numbers)
    last = threshold(keys, budget, lambda counts: counts)
    falling = torch.sort(keys, descending=True).values.tolist()
    winning = falling[:budget]
    if winning:
        assert (int(last.key), last.key.dtype) == (winning[-1], keys.dtype)
        assert int(last.tied) == falling.count(winning[-1])
        assert int(last.quota) == winning.count(winning[-1])
    elif budget:  # no keys at all
        assert (int(last.tied), int(last.quota)) == (0, 0)
