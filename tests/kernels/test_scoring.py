"""Low-precision scoring: the same choice as fp32, and errors that stay below their bounds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saelab.kernels.codes import SparseCodes
from saelab.kernels.product import Buffer
from saelab.kernels.rounded import Precision, Rounded, RoundedProduct
from saelab.kernels.scoring import ScoringBackend
from saelab.kernels.sparse import SparseBackend

UNTIMED = settings(deadline=None)
PRECISIONS = pytest.mark.parametrize("precision", ["bf16", "int8"])


def problem(seed: int, spread: float = 0.0, rows: int = 24, d_sae: int = 256, width: int = 48) -> list[Tensor]:
    """x, W, b; `spread` lets the norms of rows differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, W = random(rows, width), random(d_sae, width)
    return [x * (spread * random(rows, 1)).exp(), W * (spread * random(d_sae, 1)).exp(), random(d_sae)]


def same_choice(precision: Precision, x: Tensor, W: Tensor, b: Tensor, k: int) -> ScoringBackend:
    backend, plain = ScoringBackend(precision), SparseBackend()
    assert_same(
        backend.encode_token(x, W, b, k), plain.select_token(plain.pre_activations(x, W, b, by_latent=False), k)
    )
    return backend


def assert_same(ours: SparseCodes, expected: SparseCodes) -> None:
    assert ours.latents.tolist() == expected.latents.tolist()
    assert ours.offsets.tolist() == expected.offsets.tolist()
    torch.testing.assert_close(ours.values, expected.values, rtol=1e-5, atol=1e-4)


@PRECISIONS
@UNTIMED
@given(seed=st.integers(0, 2**32), spread=st.sampled_from([0.0, 0.3, 2.0]), k=st.integers(1, 40))
def test_the_choice_is_that_of_fp32(precision: Precision, seed: int, spread: float, k: int) -> None:
    x, W, b = problem(seed, spread)
    same_choice(precision, x, W, b, k)


def same_mutual_choice(precision: Precision, x: Tensor, W: Tensor, b: Tensor, budget: int) -> ScoringBackend:
    backend, plain = ScoringBackend(precision), SparseBackend()
    expected = plain.select_mutual(plain.pre_activations(x, W, b, by_latent=False), budget)
    assert_same(backend.encode_mutual(x, W, b, budget), expected)
    return backend


@PRECISIONS
@UNTIMED
@given(seed=st.integers(0, 2**32), spread=st.sampled_from([0.0, 0.3, 2.0]), budget=st.integers(0, 400))
def test_the_mutual_choice_is_that_of_fp32(precision: Precision, seed: int, spread: float, budget: int) -> None:
    x, W, b = problem(seed, spread)
    same_mutual_choice(precision, x, W, b, budget)


@PRECISIONS
def test_most_tokens_of_a_mutual_choice_are_certain(precision: Precision) -> None:
    x, W, b = problem(0, rows=200, d_sae=2048, width=128)
    backend = same_mutual_choice(precision, x, W, b, budget=8 * 200)
    assert backend.certificate.rows == 200
    assert backend.certificate.share > 0.9


@PRECISIONS
def test_equal_scores_of_a_mutual_choice_are_left_to_fp32(precision: Precision) -> None:
    """Every latent has a twin and every token too, so that such budgets cut through four equal scores."""
    x, W, b = problem(0)
    W[128:], b[128:], x[12:] = W[:128], b[:128], x[:12]
    for budget in (41, 42, 43):
        assert same_mutual_choice(precision, x, W, b, budget).certificate.redone >= 2


@PRECISIONS
def test_no_rows(precision: Precision) -> None:
    x, W, b = problem(0)
    assert ScoringBackend(precision).encode_token(x[:0], W, b, 3).offsets.tolist() == [0]
    assert ScoringBackend(precision).encode_mutual(x[:0], W, b, 0).offsets.tolist() == [0]


@PRECISIONS
def test_most_rows_are_certain(precision: Precision) -> None:
    x, W, b = problem(0, rows=200, d_sae=2048, width=128)
    backend = same_choice(precision, x, W, b, k=8)
    assert backend.certificate.rows == 200
    assert backend.certificate.share > 0.9


@PRECISIONS
def test_equal_scores_are_left_to_fp32(precision: Precision) -> None:
    x, W, b = problem(0)
    W[128:], b[128:] = W[:128], b[:128]  # every latent has a twin
    x[3] = 0  # and here the biases alone decide
    assert same_choice(precision, x, W, b, k=3).certificate.redone == len(x)


@PRECISIONS
@pytest.mark.parametrize("place", ["x", "W", "b"])
def test_a_broken_number_is_not_passed_over(precision: Precision, place: str) -> None:
    x, W, b = problem(0)
    {"x": x, "W": W, "b": b}[place].view(-1)[7] = torch.nan
    assert ScoringBackend(precision).encode_token(x, W, b, 3).values.isnan().any()
    assert ScoringBackend(precision).encode_mutual(x, W, b, 72).values.isnan().any()


@PRECISIONS
@UNTIMED
@given(seed=st.integers(0, 2**32), spread=st.sampled_from([0.0, 2.0]))
def test_errors_stay_below_their_bounds(precision: Precision, seed: int, spread: float) -> None:
    """Against float64: for every pair, what `lowest` promises of a latent with this exact score."""
    x, W, b = problem(seed, spread)
    scores = RoundedProduct(x, W, b, precision, Buffer())
    exact = x.double() @ W.double().T + b
    groups = torch.arange(scores.maxima.numel())
    scored = scores.members(groups).view(len(x), len(W))
    promised = torch.stack([scores.lowest(column) for column in exact.float().T], dim=1)
    assert (scored >= promised).all()
    assert torch.equal(scored.view(len(x), -1, scores.size).amax(2), scores.maxima)


@PRECISIONS
def test_rounded_rows(precision: Precision) -> None:
    rows = problem(0, spread=2.0)[0]
    rounded = Rounded.of(rows, precision)
    back = rounded.numbers.double() * rounded.scale[:, None]
    assert (rounded.norm >= back.norm(dim=1)).all()
    assert (rounded.miss >= (rows.double() - back).norm(dim=1)).all()
    assert (rounded.miss < 0.05 * rounded.norm).all()
