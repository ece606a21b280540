"""Adam on the unit sphere, and the course of the learning rate."""

import torch

from saelab.training.config import OptimizerConfig
from saelab.training.gradients import Gradients
from saelab.training.initial import Weights, initial_weights
from saelab.training.optimizer import UnitNormAdam, learning_rate_factor


def gradients(weights: Weights) -> Gradients:
    generator = torch.Generator().manual_seed(3)
    return Gradients(**{n: torch.randn(t.shape, generator=generator) for n, t in weights.named().items()})


def test_decoder_rows_stay_on_the_sphere() -> None:
    weights = initial_weights(torch.randn(20, 4), 8, seed=0)
    optimizer = UnitNormAdam(weights, OptimizerConfig(lr=0.1))
    for step in range(5):
        optimizer.step(gradients(weights), step, 5)
    torch.testing.assert_close(weights.W_dec.norm(dim=1), torch.ones(8))


def test_the_pull_along_a_row_is_removed_before_adam_sees_it() -> None:
    weights = initial_weights(torch.randn(20, 4), 8, seed=0)
    across = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    across -= (across * weights.W_dec).sum(1, keepdim=True) * weights.W_dec
    given = Gradients(torch.zeros(8, 4), across + 3 * weights.W_dec, torch.zeros(8), torch.zeros(4))
    UnitNormAdam(weights, OptimizerConfig(lr=0.1)).step(given, 0, 10)
    torch.testing.assert_close(given.W_dec, across, rtol=1e-5, atol=1e-5)


def test_course_of_the_learning_rate_by_hand() -> None:
    # 10 steps, warm-up over 40 %, decay over 20 %: 1/4, 2/4, 3/4, 1, 1 … and 1 (10-8 = 2 left), 1/2 at the end.
    factors = [learning_rate_factor(step, 10, 0.4, 0.2) for step in range(10)]
    assert factors == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.5]


def test_default_rate_follows_the_rule() -> None:
    assert OptimizerConfig().rate(2**14) == 2e-4
    assert OptimizerConfig().rate(2**12) == 4e-4
