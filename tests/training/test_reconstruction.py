"""Nested reconstructions: rings of latents, and a loss for each dictionary inside the dictionary."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes
from saelab.training.initial import Weights
from saelab.training.reconstruction import own_ends, reconstruct, ring


@given(st.integers(0, 5), st.integers(1, 12), st.integers(0, 12), st.integers(0, 2**31))
def test_rings_hold_every_match_once(rows: int, F: int, cut: int, seed: int) -> None:
    dense = torch.rand(rows, F, generator=torch.Generator().manual_seed(seed))
    codes = SparseCodes.from_mask(dense, dense > 0.6)
    cut = min(cut, F)
    (inner, first), (outer, second) = ring(codes, 0, cut), ring(codes, cut, F)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(codes.nnz))
    torch.testing.assert_close(torch.cat([inner.to_dense(), outer.to_dense()], dim=1), codes.to_dense())


def test_two_nested_dictionaries_by_hand() -> None:
    """One token x = (1, 2); latent 0 says (1, 0), latent 1 says (0, 3). Means over 2 numbers and 2 dictionaries."""
    codes = SparseCodes.from_mask(torch.tensor([[1.0, 3.0]]), torch.tensor([[True, True]]))
    weights = Weights(torch.eye(2), torch.eye(2), torch.zeros(2), torch.zeros(2))
    seen = reconstruct(codes, weights, torch.tensor([[1.0, 2.0]]), (1, 2), 2, choose())
    # Errors: (0, 2) with latent 0 alone, (0, −1) with both. Gradients of the mean of means: −2 e / (2 · 2).
    assert seen.error.tolist() == [[0.0, -1.0]]
    assert seen.grad_x_hat.tolist() == [[0.0, -0.5]]  # (0, −1) + (0, 0.5)
    assert seen.grad_f.tolist() == [0.0, 0.5]  # latent 0 answers for both, latent 1 for the second alone
    outer, inner = seen.rings  # decoder rows learn from f · ∂loss/∂x_hat: 1 · (0, −0.5) and 3 · (0, 0.5)
    assert (outer.low, outer.high, outer.grad_x_hat.tolist()) == (1, 2, [[0.0, 0.5]])
    assert (inner.low, inner.high, inner.grad_x_hat.tolist()) == (0, 1, [[0.0, -0.5]])


def test_a_shard_has_its_part_of_every_nested_dictionary() -> None:
    ends = (2, 5, 12)
    assert [own_ends(ends, shard) for shard in (range(4), range(4, 8), range(8, 12))] == [
        (2, 4, 4), (0, 1, 4), (0, 0, 4)
    ]  # fmt: skip
