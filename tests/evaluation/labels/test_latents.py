"""The best latent of a label, by hand and against a search through all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.evaluation.labels.latents import best_latents
from saelab.evaluation.labels.probes import detection
from saelab.kernels.codes import SparseCodes


def sparse(dense: torch.Tensor) -> SparseCodes:
    return SparseCodes.from_mask(dense, dense > 0)


def test_by_hand():
    # Label on tokens 0 and 1. Latent 0 fires on 0, 1, 2 with 8, 7, 1: above ¼ · 8 = 2 it is the label itself (F1 1).
    # Latent 1 fires on 0 alone (F1 2/3).
    dense = torch.tensor([[8.0, 1.0], [7.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    found = best_latents(sparse(dense), torch.tensor([1, 1, 0, 0]).bool()[:, None])
    assert found.latent.tolist() == [0]
    assert found.threshold.tolist() == [2.0]


def test_a_value_on_the_threshold_is_not_above_it():
    # Above ½ of 4 only the 4 remains, so F1 is 1; the 2 lies on the threshold.
    dense = torch.tensor([[4.0], [2.0]])
    found = best_latents(sparse(dense), torch.tensor([[True], [False]]))
    assert found.threshold.tolist() == [2.0]


@given(st.integers(0, 1000))
def test_no_latent_and_threshold_is_better(seed: int):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randint(-4, 5, (12, 3), generator=generator).clamp_min(0).float()
    labels = torch.rand(12, 2, generator=generator) > 0.5
    if not dense.any() or not labels.any(0).all():
        return
    found = best_latents(sparse(dense), labels)
    largest = dense.amax(0)
    for i in range(2):
        truth = labels[:, i : i + 1]
        chosen = dense[:, found.latent[i]] > found.threshold[i]
        every = [dense[:, j] > largest[j] * q / 4 for j in range(3) for q in range(4)]
        best = max(detection(on[:, None], truth).f1.nan_to_num().item() for on in every)
        assert detection(chosen[:, None], truth).f1.item() == pytest.approx(best)
