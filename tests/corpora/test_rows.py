"""Why positions are left out: one reason each, and numbers that add up."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.corpora import Cursor, Reason, TokenRows


def rows_of(excluded: list[list[int]]) -> TokenRows:
    why = torch.tensor(excluded, dtype=torch.uint8)
    ids = torch.arange(why.numel(), dtype=torch.int32).reshape(why.shape)
    return TokenRows(ids, ids.long(), ids, why, Cursor(), Cursor(row=len(why)))


def test_a_position_keeps_the_first_reason_it_got():
    rows = rows_of([[Reason.FIRST, 0, 0], [Reason.PADDING, Reason.SPECIAL, 0]])
    fewer = rows.leave_out(torch.tensor([[True, True, False], [True, True, False]]), Reason.SINK)
    assert fewer.excluded.tolist() == [[Reason.FIRST, Reason.SINK, 0], [Reason.PADDING, Reason.SPECIAL, 0]]
    assert fewer.keep.tolist() == [[False, False, True], [False, False, True]]
    assert fewer.counts() == {"padding": 1, "first": 1, "special": 1, "sink": 1, "sampled": 0}
    assert (rows.n_kept, fewer.n_kept) == (3, 2)


@given(st.lists(st.lists(st.sampled_from([0, *Reason]), min_size=4, max_size=4), min_size=1, max_size=5))
def test_counts_and_kept_positions_add_up(excluded: list[list[int]]):
    rows = rows_of(excluded)
    assert sum(rows.counts().values()) + rows.n_kept == rows.ids.numel()
    assert list(rows.counts()) == [reason.name.lower() for reason in Reason]


@pytest.mark.parametrize("n", [1, 2])
def test_the_first_rows_are_cut_alike(n: int):
    rows = rows_of([[0, 1], [2, 0], [0, 0]]).first(n)
    assert len(rows) == len(rows.excluded) == len(rows.keep) == n
    assert rows.next == Cursor(row=3)
