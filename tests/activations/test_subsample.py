"""The draw of tokens that are stored."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.activations.subsample import drawn, most_drawn
from saelab.corpora.rows import Cursor, TokenRows


def rows(first: int, n: int, context: int = 16) -> TokenRows:
    zeros = torch.zeros(n, context, dtype=torch.int32)
    return TokenRows(zeros, zeros.long(), zeros, zeros.to(torch.uint8), Cursor(row=first), Cursor(row=first + n))


def mix(z: int) -> int:
    """splitmix64 with whole numbers as long as one likes."""
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_mix_is_splitmix64():
    """The first output of the published generator with seed 0."""
    assert mix(0) == 0xE220A8397B1DCDAF


@settings(deadline=None)
@given(first=st.integers(0, 2**40), seed=st.integers(-5, 2**63), share=st.floats(1e-6, 0.999))
def test_the_draw_is_what_the_protocol_says(first: int, seed: int, share: float):
    expected = [[mix(mix(mix(seed) ^ (first + i)) ^ p) < share * 2**64 for p in range(16)] for i in range(3)]
    assert drawn(rows(first, 3), share, seed).tolist() == expected


def test_cutting_the_text_otherwise_changes_nothing():
    whole = drawn(rows(5, 40), 0.3, seed=1)
    assert torch.equal(torch.cat([drawn(rows(5, 13), 0.3, 1), drawn(rows(18, 27), 0.3, 1)]), whole)
    assert not torch.equal(drawn(rows(5, 40), 0.3, seed=2), whole)


def test_the_share_is_met_and_larger_shares_contain_smaller_ones():
    tokens = rows(0, 4000)
    few, many = drawn(tokens, 0.1, 0), drawn(tokens, 0.25, 0)
    assert abs(few.double().mean() - 0.1) < 4 * (0.1 * 0.9 / 64_000) ** 0.5
    assert abs(many.double().mean() - 0.25) < 4 * (0.25 * 0.75 / 64_000) ** 0.5
    assert not (few & ~many).any()
    assert (few[:, 1:] & few[:, :-1]).double().mean() < 0.013  # neighbours are drawn on their own: 0.01
    assert drawn(tokens, 1.0, 0).all()


def test_a_bound_for_buffers():
    assert most_drawn(1000, 1.0) == 1000
    assert most_drawn(1_000_000, 0.1) == 101_800  # 100,000 and six times 300
    assert most_drawn(3, 0.5) == 3
