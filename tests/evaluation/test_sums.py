"""Sums against numbers worked out by hand, and against themselves under other batches and orders."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.errors import UserError
from saelab.evaluation.sums import DocumentSums, FiringCounts, RunningMean, reconstruction_terms
from saelab.kernels.codes import SparseCodes


def codes_of(dense: list[list[float]]) -> SparseCodes:
    values = torch.tensor(dense)
    return SparseCodes.from_mask(values, values != 0)


def test_document_sums_collect_by_document():
    # Document 7 has the values 1 and 4, document 3 has 2: rows come out in document order, 3 before 7.
    sums = DocumentSums(["loss", "count"])
    sums.add(torch.tensor([7, 3, 7]), {"loss": torch.tensor([1.0, 2.0, 4.0]), "count": torch.ones(3)})
    assert sums.table().tolist() == [[2.0, 1.0], [5.0, 2.0]]


def test_document_sums_total_over_several_batches():
    sums = DocumentSums(["loss", "count"])
    sums.add(torch.tensor([0, 0]), {"loss": torch.tensor([1.0, 2.0])})
    sums.add(torch.tensor([0, 5]), {"loss": torch.tensor([4.0, 8.0]), "count": torch.tensor([1, 1])})
    assert {name: float(value) for name, value in sums.total().items()} == {"loss": 15.0, "count": 2.0}


def test_document_sums_of_nothing_are_zero():
    assert float(DocumentSums(["loss"]).total()["loss"]) == 0.0


def test_document_sums_keep_small_terms_beside_large_ones():
    # fp32 would lose 1 beside 2^24 = 16,777,216; a mean over millions of tokens needs it.
    sums = DocumentSums(["loss"])
    for value in (2.0**24, 1.0, 1.0, 1.0):
        sums.add(torch.tensor([0]), {"loss": torch.tensor([value])})
    assert float(sums.total()["loss"]) == 2**24 + 3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 11))
def test_document_sums_do_not_depend_on_batches_or_order(seed: int, n: int, batch: int):
    generator = torch.Generator().manual_seed(seed)
    documents = torch.randint(5, (n,), generator=generator)
    values = torch.randn(n, generator=generator)
    whole, pieces = DocumentSums(["v"]), DocumentSums(["v"])
    whole.add(documents, {"v": values})
    order = torch.randperm(n, generator=generator)
    for part in order.split(batch):
        pieces.add(documents[part], {"v": values[part]})
    torch.testing.assert_close(whole.table(), pieces.table(), rtol=1e-12, atol=1e-12)


def test_running_mean_by_hand():
    # Vectors (1, 0), (3, 4), (5, 2): sums (9, 6), mean (3, 2).
    mean = RunningMean(2)
    mean.add(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    mean.add(torch.zeros(0, 2))
    mean.add(torch.tensor([[5.0, 2.0]]))
    assert mean.mean.tolist() == [3.0, 2.0]


def test_running_mean_of_nothing_is_undefined():
    assert RunningMean(2).mean.isnan().all()


def test_firing_counts_by_hand():
    # Tokens fire latents {0, 1}, {0}, {} and {0, 2}; latent 3 never does.
    counts = FiringCounts(4)
    counts.add(codes_of([[1.0, 2.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]]))
    counts.add(codes_of([[0.0, 0.0, 0.0, 0.0], [3.0, 0.0, 1.0, 0.0]]))
    assert counts.n_tokens == 4
    assert counts.fired.tolist() == [3, 1, 1, 0]
    assert counts.density.tolist() == [0.75, 0.25, 0.25, 0.0]
    assert counts.l0 == 5 / 4
    assert counts.dead == 1
    assert counts.l0_histogram.tolist() == [1, 1, 2]  # one token with 0, one with 1, two with 2


def test_a_kept_match_of_value_zero_did_not_fire():
    values = torch.tensor([[0.0, 2.0]])
    counts = FiringCounts(2)
    counts.add(SparseCodes.from_mask(values, torch.ones_like(values, dtype=torch.bool)))
    assert counts.fired.tolist() == [0, 1]
    assert counts.l0_histogram.tolist() == [0, 1]


def test_l0_quantiles_by_hand():
    # L0 of ten tokens: 1 four times, 3 five times, 9 once. Median: 3 (4 of 10 have at most 1). 95 %: 9.
    counts = FiringCounts(9)
    rows = [[1.0] * n + [0.0] * (9 - n) for n in [1] * 4 + [3] * 5 + [9]]
    counts.add(codes_of(rows))
    assert [counts.l0_quantile(share) for share in (0.05, 0.4, 0.5, 0.9, 0.95)] == [1, 1, 3, 3, 9]


def test_firing_counts_of_nothing_are_undefined():
    counts = FiringCounts(2)
    assert math.isnan(counts.l0)
    assert counts.density.isnan().all()
    assert counts.l0_quantile(0.5) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 9))
def test_firing_counts_do_not_depend_on_batches_or_order(seed: int, n: int, batch: int):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(n, 6, generator=generator).clamp(min=0)
    whole, pieces = FiringCounts(6), FiringCounts(6)
    whole.add(SparseCodes.from_mask(dense, dense > 0))
    for part in torch.randperm(n, generator=generator).split(batch):
        pieces.add(SparseCodes.from_mask(dense[part], dense[part] > 0))
    assert whole.fired.tolist() == pieces.fired.tolist()
    assert whole.l0_histogram.tolist() == pieces.l0_histogram.tolist()


def test_reconstruction_terms_by_hand():
    # x = (3, 4), x_hat = (3, 0), centre (1, 1):
    #   |x - x_hat|² = 16;  |x - centre|² = 4 + 9 = 13;  |x_hat|² = 9;  x·x_hat = 9;  cosine = 9 / (5 · 3) = 0.6
    terms = reconstruction_terms(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 0.0]]), torch.ones(2))
    assert {name: float(value[0]) for name, value in terms.items()} == pytest.approx(
        {"tokens": 1, "residual": 16, "scatter": 13, "hat_squares": 9, "dot": 9, "cosine": 0.6}
    )


def test_cosine_with_a_zero_reconstruction_is_zero():
    terms = reconstruction_terms(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2), torch.zeros(2))
    assert terms["cosine"].tolist() == [0.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused(bad: float):
    with pytest.raises(UserError, match="NaN or infinity"):
        reconstruction_terms(torch.tensor([[bad, 0.0]]), torch.zeros(1, 2), torch.zeros(2))
