"""Decode and gradients at kept matches, against dense autograd in float64."""

import pytest
import torch

from saelab.kernels.codes import SparseCodes, concatenate
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.sparse import SparseBackend

BACKENDS = pytest.mark.parametrize("backend", [ReferenceBackend(), SparseBackend()], ids=lambda b: b.name)


def ragged_codes(rows: int = 7, d_sae: int = 5) -> SparseCodes:
    """Rows of 0 to 5 matches; latent 3 never gets one."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(rows, d_sae, generator=generator) < 0.5
    mask[2], mask[:, 3] = False, False
    return SparseCodes.from_mask(torch.randn(rows, d_sae, dtype=torch.float64, generator=generator), mask)


@BACKENDS
def test_decode_is_the_dense_product(backend: SparseBackend) -> None:
    codes = ragged_codes()
    W_dec = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(backend.decode(codes, W_dec), codes.to_dense() @ W_dec, rtol=1e-12, atol=1e-12)


@BACKENDS
def test_gradients_are_autograds(backend: SparseBackend) -> None:
    codes = ragged_codes()
    W_dec = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    dense = codes.to_dense().requires_grad_()
    grad_x_hat = torch.randn(7, 3, dtype=torch.float64)
    (dense @ W_dec).backward(grad_x_hat)
    assert dense.grad is not None
    assert W_dec.grad is not None
    kept = dense.grad[codes.row_ids, codes.latents]
    torch.testing.assert_close(backend.value_gradients(grad_x_hat, codes, W_dec.detach()), kept)
    torch.testing.assert_close(backend.row_gradients(codes, codes.values, grad_x_hat), W_dec.grad)


@BACKENDS
def test_no_match_at_all(backend: SparseBackend) -> None:
    codes = SparseCodes.from_mask(torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool))
    assert backend.decode(codes, torch.ones(4, 3)).tolist() == [[0.0] * 3] * 2
    assert backend.row_gradients(codes, codes.values, torch.ones(2, 3)).abs().sum() == 0
    assert backend.value_gradients(torch.ones(2, 3), codes, torch.ones(4, 3)).numel() == 0


def test_codes_survive_slicing_and_stacking() -> None:
    codes = ragged_codes()
    again = concatenate([codes.take(0, 3), codes.take(3, 3), codes.take(3, 7)])
    assert torch.equal(again.to_dense(), codes.to_dense())


def test_keeping_the_positive_matches() -> None:
    codes = ragged_codes()
    assert torch.equal(codes.positive().to_dense(), codes.to_dense().relu())
    # By hand: latents 0 and 2 fire once, latent 1 never, and the zero does not count as firing.
    few = SparseCodes.from_mask(torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 2.0]]), torch.ones(2, 3, dtype=torch.bool))
    assert few.fired().tolist() == [1, 0, 1]
