"""Running statistics of latents, worked out by hand."""

import pytest
import torch

from saelab.kernels.codes import SparseCodes
from saelab.training.statistics import LatentStatistics


def codes(rows: list[list[float]]) -> SparseCodes:
    dense = torch.tensor(rows)
    return SparseCodes.from_mask(dense, dense != 0)


def take(statistics: LatentStatistics, kept: SparseCodes, frozen: bool = False) -> None:
    statistics.update(kept, kept.fired(), kept.rows, torch.tensor(frozen))


def test_idle_counts_tokens_and_a_match_without_activation_is_not_firing() -> None:
    statistics = LatentStatistics(3, torch.device("cpu"))
    # Latent 1 holds a match with a negative value: it did not fire.
    take(statistics, codes([[1.0, -2.0, 0.0], [3.0, 0.0, 0.0]]))
    assert statistics.idle.tolist() == [0, 2, 2]
    take(statistics, codes([[0.0, 5.0, 0.0]]))
    assert statistics.idle.tolist() == [1, 0, 3]
    assert statistics.dead(3).tolist() == [False, False, True]


def test_density_is_unbiased_from_the_first_batch() -> None:
    statistics = LatentStatistics(2, torch.device("cpu"))
    for _ in range(3):
        take(statistics, codes([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0], [0.0, 0.0]]))
    torch.testing.assert_close(statistics.densities(), torch.tensor([0.75, 0.25], dtype=torch.float64))


def test_thresholds_follow_the_smallest_positive_kept_value() -> None:
    statistics = LatentStatistics(3, torch.device("cpu"))
    take(statistics, codes([[4.0, 2.0, 0.0], [6.0, -1.0, 0.0]]))
    # Smallest positive: 4 and 2 per latent, 2 for the batch; the silent latent never fires at inference.
    assert statistics.latent_thresholds()[:2].tolist() == pytest.approx([4.0, 2.0])
    assert statistics.latent_thresholds()[2] == torch.finfo(torch.float32).max
    assert statistics.global_threshold() == pytest.approx(2.0)
    take(statistics, codes([[8.0, 0.0, 0.0]]))
    # Bias-corrected mean of two values with weights .99 and 1: (.99·4 + 8) / 1.99; latent 1 keeps its own.
    assert statistics.latent_thresholds()[:2].tolist() == pytest.approx([(0.99 * 4 + 8) / 1.99, 2.0])


def test_frozen_statistics_stay_as_they_are() -> None:
    statistics = LatentStatistics(3, torch.device("cpu"))
    take(statistics, codes([[4.0, 2.0, 0.0]]))
    before = {name: tensor.clone() for name, tensor in statistics.state().items()}
    take(statistics, codes([[1.0, 0.0, 1.0]]), frozen=True)
    for name, tensor in statistics.state().items():
        assert torch.equal(tensor, before[name]), name


def test_a_batch_without_a_firing_latent_moves_no_threshold() -> None:
    statistics = LatentStatistics(2, torch.device("cpu"))
    take(statistics, codes([[-1.0, -2.0]]))
    assert statistics.batch_threshold.tolist() == [0, 0]
    assert statistics.threshold_seen.tolist() == [0, 0]
