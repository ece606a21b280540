"""Approximation: the arithmetic by hand, on answers that are given."""

import pytest
import torch

from saelab.evaluation.ioi.approximation import Reference, approximate
from tests.evaluation.ioi.readout import ONE, TWO, first_number


def test_approximation_by_hand() -> None:
    x = {ONE: torch.tensor([[3.0, 1.0], [5.0, 1.0]]), TWO: torch.tensor([[1.0, 0.0], [1.0, 0.0]])}
    mean = {ONE: torch.tensor([1.0, 0.0]), TWO: torch.tensor([0.0, 0.0])}
    reference = Reference.of(first_number, x, mean, first_number(x))
    assert reference.ablated.logit_difference.tolist() == [1, 1]
    hat = {ONE: torch.tensor([[2.0, 1.0], [3.0, 1.0]]), TWO: torch.tensor([[1.0, 0.0], [1.0, 0.0]])}
    # Clean: (4 + 6)/2 = 5. Hat: (3 + 4)/2. Left over: 1 + (3 − 2) = 2 and 1 + (5 − 3) = 3, nothing of node two.
    found = approximate(first_number, hat, reference)
    assert found.sufficiency.value == pytest.approx(3.5 / 5)
    assert found.necessity.value == pytest.approx(1 - 1.5 / 4)
    # Sampled prompts are one of them twice, or both: 3/4 and 4/6 are the ends.
    assert (found.sufficiency.low, found.sufficiency.high) == pytest.approx((4 / 6, 3 / 4))
