"""The best one-to-one matching, against all there are."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.evaluation.truth.assignment import best_assignment


def test_greed_is_not_enough() -> None:
    # Row 0 wants column 0 most, but then row 1 is left with nothing: 5 + 0 < 4 + 4.
    assert best_assignment(torch.tensor([[5.0, 4.0], [4.0, 0.0]])).tolist() == [1, 0]


@given(st.data())
def test_the_sum_is_the_largest_of_all_matchings(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 4))
    m = data.draw(st.integers(n, 6))
    whole = st.integers(-3, 3)  # few values: many ties
    score = torch.tensor(data.draw(st.lists(st.lists(whole, min_size=m, max_size=m), min_size=n, max_size=n))).double()
    columns = best_assignment(score)
    best = max(sum(float(score[i, j]) for i, j in enumerate(chosen)) for chosen in permutations(range(m), n))
    assert len(set(columns.tolist())) == n
    assert float(score[torch.arange(n), columns].sum()) == best


def test_more_rows_than_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="3 rows can't each have one of 2 columns"):
        best_assignment(torch.zeros(3, 2))
