"""Attention sinks, told by the length of their activations: worked out by hand, and each row by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.corpora import TokenPolicy
from saelab.corpora.sinks import are_sinks


def vectors(norms: list[list[float]]) -> torch.Tensor:
    """Vectors of these lengths, each in a direction of its own."""
    turned = torch.nn.functional.normalize(torch.randn(*torch.tensor(norms).shape, 3), dim=-1)
    return turned * torch.tensor(norms)[..., None]


def test_by_hand():
    # Medians: 2 (of 1 2 2 3 50), and of the real ones 1 4 9 60 the lower of the two in the middle, 4.
    x = vectors([[1, 2, 50, 2, 3], [60, 1, 9, 4, 500]])
    real = torch.tensor([[True] * 5, [True] * 4 + [False]])
    assert are_sinks(x, real, times=10).tolist() == [[False, False, True, False, False], [True] + [False] * 4]
    assert are_sinks(x, real, times=2).tolist() == [
        [False, False, True, False, False],
        [True, False, True] + [False] * 2,
    ]
    assert not are_sinks(x, real, times=26).any()


def test_half_precision_is_judged_in_fp32():
    x = torch.full((1, 3, 64), 100.0, dtype=torch.float16)
    x[0, 0] = 60000.0  # the sum of its squares is far beyond what fp16 holds
    assert are_sinks(x, torch.ones(1, 3, dtype=torch.bool), times=10).tolist() == [[True, False, False]]


@given(
    st.lists(st.lists(st.floats(1 / 64, 1000, width=32), min_size=5, max_size=5), min_size=1, max_size=6),
    st.lists(st.integers(1, 5), min_size=6, max_size=6),
    st.floats(1.5, 20),
)
def test_a_row_is_judged_by_itself(norms: list[list[float]], lengths: list[int], times: float):
    x = torch.tensor(norms)[..., None]
    real = torch.arange(5) < torch.tensor(lengths[: len(norms)])[:, None]
    together = are_sinks(x, real, times)
    for row, length in enumerate(lengths[: len(norms)]):
        alone = are_sinks(x[row : row + 1, :length], torch.ones(1, length, dtype=torch.bool), times)
        assert together[row].tolist() == alone[0].tolist() + [False] * (5 - length)
    assert (together.sum(1) < real.sum(1)).all()  # the median itself is none


def test_a_norm_without_a_site_is_refused():
    with pytest.raises(ValueError, match="sink_norm says nothing without sink_site"):
        TokenPolicy(sink_norm=5)
