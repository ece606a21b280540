"""Running statistics of latents, worked out by hand."""

import pytest
import torch

from saelab.kernels.codes import SparseCodes
from saelab.training.statistics import LatentStatistics


def codes(rows: list[list[float]]) -> SparseCodes:
    dense = torch.tensor(rows)
    return SparseCodes.from_mask(dense, dense != 0)


def test_idle_counts_tokens_and_a_match_without_activation_is_not_firing() -> None:
    statistics = LatentStatistics(3, torch.device("cpu"))
    # Latent 1 holds a match with a negative value: it did not fire.
    statistics.update(codes([[1.0, -2.0, 0.0], [3.0, 0.0, 0.0]]))
    assert statistics.idle.tolist() == [0, 2, 2]
    statistics.update(codes([[0.0, 5.0, 0.0]]))
    assert statistics.idle.tolist() == [1, 0, 3]
    assert statistics.dead(3).tolist() == [False, False, True]


def test_density_is_unbiased_from_the_first_batch() -> None:
    statistics = LatentStatistics(2, torch.device("cpu"))
    for _ in range(3):
        statistics.update(codes([[1.0, 0.0], [1.0, 0.0], [1.0, 2.0], [0.0, 0.0]]))
    torch.testing.assert_close(statistics.densities(), torch.tensor([0.75, 0.25], dtype=torch.float64))


def test_thresholds_follow_the_smallest_positive_kept_value() -> None:
    statistics = LatentStatistics(3, torch.device("cpu"))
    statistics.update(codes([[4.0, 2.0, 0.0], [6.0, -1.0, 0.0]]))
    # Smallest positive: 4 and 2 per latent, 2 for the batch; the silent latent never fires at inference.
    assert statistics.latent_thresholds()[:2].tolist() == pytest.approx([4.0, 2.0])
    assert statistics.latent_thresholds()[2] == torch.finfo(torch.float32).max
    assert statistics.global_threshold() == pytest.approx(2.0)
    statistics.update(codes([[8.0, 0.0, 0.0]]))
    # Bias-corrected mean of two values with weights .99 and 1: (.99·4 + 8) / 1.99; latent 1 keeps its own.
    assert statistics.latent_thresholds()[:2].tolist() == pytest.approx([(0.99 * 4 + 8) / 1.99, 2.0])
