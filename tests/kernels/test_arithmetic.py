"""Decode, gradients and Adam at kept matches, against dense autograd and torch's own optimiser in float64."""

import pytest
import torch
from torch import Tensor

from saelab.kernels import dense, sparse
from saelab.kernels.backend import AdamStep, Backend
from saelab.kernels.codes import SparseCodes, concatenate
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.sparse import SparseBackend

BACKENDS = pytest.mark.parametrize("backend", [ReferenceBackend(), SparseBackend()], ids=lambda b: b.name)
# Shares of kept pairs below and above each threshold of `dense`, empty and full included.
SHARES = [0.0, 0.02, 0.18, 0.5, 1.0]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ragged_codes(rows: int = 40, d_sae: int = 33, share: float = 0.5) -> SparseCodes:
    """Rows of very different length; row 2 and latent 3 never get a match."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(rows, d_sae, generator=generator) < share
    mask[2], mask[:, 3] = False, False
    return SparseCodes.from_mask(random(rows, d_sae), mask)


@BACKENDS
@pytest.mark.parametrize("share", SHARES)
def test_decode_is_the_dense_product(backend: Backend, share: float) -> None:
    codes, W_dec = ragged_codes(share=share), random(33, 5)
    torch.testing.assert_close(backend.decode(codes, W_dec), codes.to_dense() @ W_dec, rtol=1e-12, atol=1e-12)


@BACKENDS
@pytest.mark.parametrize("share", SHARES)
def test_gradients_are_autograds(backend: Backend, share: float) -> None:
    codes = ragged_codes(share=share)
    W_dec = random(33, 5).requires_grad_()
    values = codes.to_dense().requires_grad_()
    grad_x_hat = random(40, 5, seed=1)
    (values @ W_dec).backward(grad_x_hat)
    assert values.grad is not None
    assert W_dec.grad is not None
    kept = values.grad[codes.row_ids, codes.latents]
    torch.testing.assert_close(backend.value_gradients(grad_x_hat, codes, W_dec.detach()), kept)
    torch.testing.assert_close(backend.row_gradients(codes, codes.values, grad_x_hat), W_dec.grad)


@BACKENDS
@pytest.mark.parametrize("share", SHARES)
def test_gradients_of_some_rows(backend: Backend, share: float) -> None:
    codes, inputs = ragged_codes(share=share), random(40, 5)
    whole = backend.row_gradients(codes, codes.values, inputs)
    for part in (range(33), range(4), range(3, 4), range(20, 33)):
        some = backend.row_gradients(codes, codes.values, inputs, part)
        torch.testing.assert_close(some, whole[part.start : part.stop], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_narrow_columns_and_small_tiles(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only large problems need, forced upon a small one: column blocks, and several dense tiles."""
    monkeypatch.setattr(sparse, "REUSE", 0)
    monkeypatch.setattr(sparse, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(sparse, "NARROWEST", 3)
    monkeypatch.setattr(dense, "TILE_ELEMENTS", 100)
    reference, backend = ReferenceBackend(), SparseBackend()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for share in SHARES:
        codes = ragged_codes(share=share)
        codes = codes.with_values(codes.values.to(dtype))
        W_dec, grad = random(33, 8).to(dtype), random(40, 8, seed=1).to(dtype)
        for one, other in (
            (backend.decode(codes, W_dec), reference.decode(codes, W_dec)),
            (backend.value_gradients(grad, codes, W_dec), reference.value_gradients(grad, codes, W_dec)),
            (backend.row_gradients(codes, codes.values, grad), reference.row_gradients(codes, codes.values, grad)),
        ):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@BACKENDS
@pytest.mark.parametrize("by_latent", [False, True])
def test_pre_activations(backend: Backend, by_latent: bool) -> None:
    for rows in (6, 2, 9):  # the buffer of one batch serves the next, smaller or larger
        x, W, b = random(rows, 5), random(11, 5), random(11)
        z = backend.pre_activations(x, W, b, by_latent)
        torch.testing.assert_close(z, x @ W.T + b, rtol=1e-12, atol=1e-12)
        assert (z.T if by_latent else z).is_contiguous()


def test_fp32_products_keep_fp32_precision() -> None:
    """Torch calls the fast path "bf16"; a rounded product would miss by 1e-3."""
    x, W = random(64, 256), random(128, 256, seed=1)
    z = SparseBackend().pre_activations(x.float(), W.float(), torch.zeros(128), by_latent=False)
    assert ((z - x.float().double() @ W.float().double().T).abs().max() / z.abs().max()) < 1e-6


@BACKENDS
def test_passes_cover_every_latent_once(backend: Backend) -> None:
    for d_sae in (1, 2048, 5000):
        codes = SparseCodes.from_mask(torch.zeros(2, d_sae), torch.zeros(2, d_sae, dtype=torch.bool))
        assert [latent for part in backend.passes(codes) for latent in part] == list(range(d_sae))


@BACKENDS
@pytest.mark.parametrize("unit_rows", [False, True])
def test_adam_is_torchs(backend: Backend, unit_rows: bool) -> None:
    weight = torch.nn.functional.normalize(random(6, 4), dim=1)
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    expected = weight.clone().requires_grad_()
    torchs = torch.optim.Adam([expected], lr=0.1, betas=(0.8, 0.99), eps=1e-3)
    for number in range(1, 4):
        gradient = random(6, 4, seed=number)
        with torch.no_grad():
            expected.grad = gradient.clone()
            if unit_rows:
                expected.grad -= (gradient * expected).sum(1, keepdim=True) * expected
        torchs.step()
        if unit_rows:
            expected.data = torch.nn.functional.normalize(expected.data, dim=1)
        backend.adam(weight, gradient, mean, square, AdamStep(number, 0.1, 0.8, 0.99, 1e-3), unit_rows)
        torch.testing.assert_close(weight, expected.data, rtol=1e-12, atol=1e-12)


@BACKENDS
def test_frozen_weights_and_moments_stay_as_they_are(backend: Backend) -> None:
    tensors = [torch.nn.functional.normalize(random(6, 4, seed=seed), dim=1).abs() for seed in range(3)]
    before = [tensor.clone() for tensor in tensors]
    for frozen in (True, False):
        step = AdamStep(2, 0.1, 0.8, 0.99, 1e-3, torch.tensor(frozen))
        backend.adam(tensors[0], random(6, 4, seed=9), tensors[1], tensors[2], step, unit_rows=True)
        assert all(torch.equal(*pair) == frozen for pair in zip(tensors, before, strict=True))


@BACKENDS
@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_best_that_fire(backend: Backend, k: int) -> None:
    scores = torch.tensor([[3.0, -1.0, 2.0, 1.0, 0.0], [-1.0, -2.0, -3.0, -4.0, -5.0], [0.0, 1.0, -2.0, -3.0, 1.0]])
    expected = {
        1: [[3, 0, 0, 0, 0], [0] * 5, [0, 1, 0, 0, 0]],
        3: [[3, 0, 2, 1, 0], [0] * 5, [0, 1, 0, 0, 1]],
        5: [[3, 0, 2, 1, 0], [0] * 5, [0, 1, 0, 0, 1]],
    }
    codes = backend.select_firing(scores, k)
    assert codes.to_dense().tolist() == expected[k]
    assert bool((codes.values > 0).all())


@BACKENDS
@pytest.mark.parametrize(("rows", "d_sae"), [(0, 4), (3, 0), (0, 0)])
def test_no_tokens_or_no_latents(backend: Backend, rows: int, d_sae: int) -> None:
    """Ranks that divide a small batch, or the few latents that are starved, may get none of them."""
    scores, W, x = random(rows, d_sae), random(d_sae, 5), random(rows, 5)
    for codes in (
        backend.select_token(scores, 2 if d_sae else 0),
        backend.select_mutual(scores, 2),
        backend.select_feature(scores, torch.zeros(d_sae, dtype=torch.int64)),
        backend.select_firing(scores, min(2, d_sae)).positive(),
    ):
        expected = codes.to_dense() @ W
        assert torch.equal(backend.decode(codes, W), expected)
        assert torch.equal(backend.value_gradients(x, codes, W), (x @ W.T)[codes.row_ids, codes.latents])
        assert torch.equal(backend.row_gradients(codes, codes.values, x), codes.to_dense().T @ x)
        assert torch.equal(backend.latent_sums(codes, codes.values), codes.to_dense().sum(0))
    assert backend.pre_activations(x, W, random(d_sae), by_latent=False).shape == (rows, d_sae)


def test_few_starved_latents_get_a_table_of_their_own() -> None:
    deficit = torch.tensor([0.0, 0.5, 0, 0, 0, 0, 0, 1.0])
    few = SparseBackend().starved(deficit)
    assert few is not None
    assert few.tolist() == [1, 7]
    assert SparseBackend().starved(deficit + 0.1) is None


def test_codes_survive_slicing_and_stacking() -> None:
    codes = ragged_codes()
    again = concatenate([codes.take(0, 3), codes.take(3, 3), codes.take(3, 40)])
    assert torch.equal(again.to_dense(), codes.to_dense())


def test_keeping_the_positive_matches() -> None:
    codes = ragged_codes()
    assert torch.equal(codes.positive().to_dense(), codes.to_dense().relu())
    # By hand: latents 0 and 2 fire once, latent 1 never, and the zero does not count as firing.
    few = SparseCodes.from_mask(torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 2.0]]), torch.ones(2, 3, dtype=torch.bool))
    assert few.fired().tolist() == [1, 0, 1]
