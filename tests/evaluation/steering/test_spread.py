"""From vectors at places to numbers over vectors: every formula by hand."""

import math

import pytest
import torch

from saelab.evaluation.steering.spread import Weighing, agreement, at_harm, interval, per_harm, pooled, spread

NAN = math.nan


def column(*numbers: float) -> torch.Tensor:
    """The text alone, without samples."""
    return torch.tensor([numbers], dtype=torch.float64)


def test_the_mean_is_over_places_and_each_sample_weighs_documents():
    weighing = Weighing.of([4, 4, 7], resamples=500, seed=0)
    values = torch.tensor([[1.0, 3.0, 8.0]])
    assert weighing.mean(values)[0].tolist() == [4.0]
    # Document 4 twice: (1 + 3) / 2; document 7 twice: 8; each once: the text itself.
    assert {round(float(mean), 9) for mean in weighing.mean(values)[1:]} == {2.0, 4.0, 8.0}
    assert set(weighing.weights.sum(1).tolist()) == {2.0, 3.0, 4.0}


def test_one_document_has_no_interval():
    numbers = Weighing.of([3, 3], resamples=50, seed=0).mean(torch.rand(1, 2))
    assert len(numbers) == 1
    assert interval(numbers[:, 0]).low is None


def test_an_interval_is_the_middle_of_the_samples():
    found = interval(torch.tensor([0.0, *range(101)], dtype=torch.float64))
    assert (found.low, found.high) == pytest.approx((2.5, 97.5))
    assert interval(torch.tensor([0.0, 1.0, NAN], dtype=torch.float64)).high is None


def test_quantiles_over_vectors():
    found = spread(column(0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, NAN))
    assert found is not None
    assert [found.p10, found.p25, found.p50, found.p75, found.p90, found.mean] == [10, 25, 50, 75, 90, 50]
    assert spread(column(NAN, NAN)) is None


def test_agreement_is_the_share_of_the_commonest_token():
    promoted = torch.tensor([[5, 5, 9, 5], [1, 2, 3, 4], [7, 7, 7, 7]])
    assert agreement(promoted).tolist() == [[0.75, 0.25, 1.0]]


def test_a_ratio_needs_harm():
    found = per_harm(column(0.2, 0.3, 0.1, -0.1), column(0.1, 0.01, -0.5, 0.2))
    assert found[0, [0, 3]].tolist() == pytest.approx([2.0, -0.5])
    assert found[0, 1:3].isnan().all()


def test_pooling_sums_first():
    assert pooled(column(1.0, 2.0), column(0.5, -0.1)).tolist() == pytest.approx([7.5])
    assert pooled(column(1.0), column(-1.0)).isnan().all()


@pytest.mark.parametrize(
    ("gains", "harms", "expected"),
    [
        ([0.1, 0.3], [0.05, 0.15], 0.2),  # half way between two lengths
        ([0.4], [0.2], 0.2),  # half way from nothing
        ([0.1, 0.3], [0.1, 0.4], 0.1),  # just there
        ([0.1, 0.5, 0.7], [-0.02, 0.22, 0.3], 0.3),  # the first length may do good
        ([0.1, 0.3], [0.05, 0.09], NAN),  # never
    ],
)
def test_gain_at_a_harm_of_a_tenth(gains, harms, expected):
    found = at_harm(torch.tensor(gains)[:, None], torch.tensor(harms)[:, None])
    assert found.tolist() == pytest.approx([expected], nan_ok=True)
