"""The causal check by F1 threshold: the arithmetic by hand, on answers that are given."""

import pytest
import torch

from saelab.evaluation.ioi.approximation import Reference
from saelab.evaluation.ioi.features import Features
from saelab.evaluation.ioi.interpretability import above_thresholds
from saelab.kernels.codes import SparseCodes
from tests.evaluation.ioi.readout import ONE, first_number


def test_latents_above_a_threshold_by_hand() -> None:
    # One prompt type: a = 2 e0 + 1 e1 − 1 e2 read as e0 + e1 + e2 directions that all add to the first number.
    vectors = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, -1.0]])
    dense = torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]])
    codes = SparseCodes.from_mask(dense, dense != 0)
    features = Features("given", vectors, torch.zeros(2), lambda x, prompts: codes)
    x = {ONE: features.reconstruct(codes)}
    reference = Reference.of(first_number, x, {ONE: torch.zeros(2)}, first_number(x))
    f1 = {ONE: torch.tensor([0.9, 0.5, 0.1])}
    found = above_thresholds(first_number, {ONE: features}, {ONE: codes}, f1, reference, (0.0, 0.5, 0.8, 1.0))
    assert [part.latents for part in found] == [3, 2, 1, 0]
    assert [part.approximation.sufficiency.value for part in found] == pytest.approx([1, 3 / 4, 2 / 4, 0])
    assert [part.approximation.necessity.value for part in found] == pytest.approx([1, 3 / 4, 2 / 4, 0])
