"""The Triton kernels on a GPU at the sizes of real training; the same comparisons in small are in `test_triton.py`."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

pytest.importorskip("triton", reason="Triton has no build for this platform")

from saelab.kernels.backend import AdamStep, choose
from saelab.kernels.codes import SparseCodes
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.triton.backend import TritonBackend

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here"),
]
REFERENCE, TRITON = ReferenceBackend(), TritonBackend()
B, F, K, D = 4096, 24576, 32, 768


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(B, F, device="cuda", generator=torch.Generator("cuda").manual_seed(0))


@pytest.fixture
def codes(scores: Tensor) -> SparseCodes:
    return TRITON.select_mutual(scores, K * B)


def budgets() -> Tensor:
    """On the host; a few latents want every token, many want none."""
    hot = torch.zeros(F, dtype=torch.int64)
    hot[::1000], hot[1::7] = B, 30
    return hot


def same(one: SparseCodes, other: SparseCodes) -> None:
    for ours, theirs in ((one.offsets, other.offsets), (one.latents, other.latents), (one.values, other.values)):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)  # bf16: ties at every limit
def test_selection_is_the_references(scores: Tensor, dtype: torch.dtype) -> None:
    scores = scores.to(dtype)
    same(TRITON.select_token(scores, K), REFERENCE.select_token(scores, K))
    same(TRITON.select_mutual(scores, K * B), REFERENCE.select_mutual(scores, K * B))
    same(TRITON.select_feature(scores, budgets()), REFERENCE.select_feature(scores, budgets()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_are_those_of_float64(codes: SparseCodes, dtype: torch.dtype) -> None:
    W_dec, x = (torch.randn(rows, D, device="cuda").to(dtype) for rows in (F, B))
    exact = codes.with_values(codes.values.double())
    for ours, theirs in (
        (TRITON.decode(codes, W_dec), REFERENCE.decode(exact, W_dec.double())),
        (TRITON.value_gradients(x, codes, W_dec), REFERENCE.value_gradients(x.double(), exact, W_dec.double())),
        (TRITON.row_gradients(codes, codes.values, x), REFERENCE.row_gradients(exact, exact.values, x.double())),
    ):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def test_a_latent_of_all_tokens(scores: Tensor) -> None:
    codes = TRITON.select_feature(scores, budgets())
    x = torch.randn(B, D, device="cuda")
    theirs = REFERENCE.row_gradients(codes, codes.values, x)
    assert (TRITON.row_gradients(codes, codes.values, x) - theirs).norm() <= 1e-5 * theirs.norm()


def test_the_same_inputs_give_the_same_bits(scores: Tensor) -> None:
    x = torch.randn(B, D, device="cuda")
    sums = []
    for _ in range(3):
        codes = TRITON.select_feature(scores, budgets())
        sums.append(TRITON.row_gradients(codes, codes.values, x))
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[0], sums[2])


def test_adam_is_the_references() -> None:
    states = []
    for backend in (TRITON, REFERENCE):
        generator = torch.Generator("cuda").manual_seed(0)
        weight = normalize(torch.randn(F, 2304, device="cuda", generator=generator), dim=1)
        mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
        for number in (1, 2):
            gradient = torch.randn(weight.shape, device="cuda", generator=generator)
            backend.adam(weight, gradient, mean, square, AdamStep(number, 1e-3, 0.9, 0.999, 1e-8), unit_rows=True)
        states.append((weight, mean, square))
    for ours, theirs in zip(*states, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_host_never_waits(scores: Tensor) -> None:
    W_dec, x, wanted = torch.randn(F, D, device="cuda"), torch.randn(B, D, device="cuda"), budgets()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for codes in (
            TRITON.select_token(scores, K), TRITON.select_mutual(scores, K * B), TRITON.select_feature(scores, wanted),
        ):  # fmt: skip
            TRITON.decode(codes, W_dec)
            TRITON.value_gradients(x, codes, W_dec)
            TRITON.row_gradients(codes, codes.values, x)
            codes.fired()
        step = AdamStep(1, 1e-3, 0.9, 0.999, 1e-8, scores[0, 0] > 1e9)
        TRITON.adam(W_dec, W_dec.clone(), W_dec.clone(), W_dec.clone(), step, unit_rows=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_bf16_product_sums_in_fp32() -> None:
    x, W_enc, b_enc = (torch.randn(shape, device="cuda") for shape in ((B, D), (F, D), (F,)))
    theirs = x.bfloat16().double() @ W_enc.bfloat16().double().T + b_enc
    for by_latent in (False, True):
        ours = TritonBackend(half=True).pre_activations(x, W_enc, b_enc, by_latent)
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def test_auto_takes_triton() -> None:
    expected = "triton" if torch.cuda.get_device_capability() >= (8, 0) else "reference"
    assert choose("auto", "cuda").name == expected
