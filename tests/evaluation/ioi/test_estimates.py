"""Means over prompts with their intervals."""

import torch

from saelab.evaluation.ioi.estimates import means


def test_means_are_means() -> None:
    found = means({"yes": torch.tensor([True, False, True, True]), "x": torch.tensor([1.0, 2.0, 3.0, 6.0])})
    assert (found["yes"].value, found["x"].value) == (0.75, 3.0)
    assert 0.25 <= found["yes"].low <= 0.75 <= found["yes"].high <= 1
