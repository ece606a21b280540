"""Bootstrap intervals where the answer is known."""

import math

import pytest
import torch

from saelab.evaluation.bootstrap import intervals, resampled
from saelab.evaluation.sums import DocumentSums


def sums_of(documents: list[int], values: list[float]) -> DocumentSums:
    sums = DocumentSums(["total", "n"])
    sums.add(torch.tensor(documents), {"total": torch.tensor(values), "n": torch.ones(len(values))})
    return sums


def mean(s):
    return {"mean": s["total"] / s["n"]}


def test_equal_documents_leave_no_doubt():
    # Every document has the mean 2 (1 + 3 or 2 + 2), whichever are drawn.
    sums = sums_of([0, 0, 1, 1, 2, 2], [1.0, 3.0, 2.0, 2.0, 3.0, 1.0])
    assert intervals(sums, mean, resamples=200, seed=0)["mean"] == (2.0, 2.0)


def test_two_documents_by_hand():
    # One token each, worth 0 and 1: samples of two have mean 0, 1/2, 1 with chances 1/4, 1/2, 1/4.
    sums = sums_of([0, 1], [0.0, 1.0])
    means = mean(resampled(sums, resamples=4000, seed=0))["mean"]
    shares = [float((means == value).double().mean()) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert intervals(sums, mean, resamples=1000, seed=0)["mean"] == (0.0, 1.0)


def test_width_is_that_of_the_normal_law():
    # 400 documents of one token with standard deviation 1: the interval is 2 · 1.96 / sqrt(400) = 0.196 wide.
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    values = (values - values.mean()) / values.std(correction=0)
    low, high = intervals(sums_of(list(range(400)), values.tolist()), mean, resamples=4000, seed=1)["mean"]
    assert high - low == pytest.approx(0.196, rel=0.05)
    assert (high + low) / 2 == pytest.approx(0.0, abs=0.01)


def test_tokens_of_one_document_are_drawn_together():
    # 400 tokens in 4 documents, equal within each: uncertain as 4 draws, not as 400.
    documents = [i // 100 for i in range(400)]
    low, high = intervals(sums_of(documents, [float(d) for d in documents]), mean, resamples=1000, seed=0)["mean"]
    assert high - low > 1.5


def test_the_seed_decides_and_the_order_of_arrival_does_not():
    values = [float(i * i % 7) for i in range(20)]
    forward = sums_of(list(range(20)), values)
    backward = sums_of(list(range(20))[::-1], values[::-1])
    same = intervals(forward, mean, resamples=100, seed=3)
    assert same == intervals(backward, mean, resamples=100, seed=3)
    assert same != intervals(forward, mean, resamples=100, seed=4)


def test_one_document_has_no_interval():
    low, high = intervals(sums_of([0, 0], [1.0, 2.0]), mean, resamples=10, seed=0)["mean"]
    assert math.isnan(low)
    assert math.isnan(high)
