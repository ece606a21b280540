"""Adam on the unit sphere, and the course of the learning rate."""

import torch
from torch import Tensor

from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes
from saelab.training.config import OptimizerConfig
from saelab.training.gradients import Gradients
from saelab.training.initial import Weights, initial_weights
from saelab.training.optimizer import UnitNormAdam, learning_rate_factor
from saelab.training.rows import RowGradient, SomeRows

NOTHING_KEPT = SparseCodes.from_mask(torch.zeros(1, 8), torch.zeros(1, 8, dtype=torch.bool))
GOES_ON = torch.tensor(False)


def gradients(weights: Weights, W_enc: Tensor, W_dec: Tensor) -> Gradients:
    every = torch.arange(len(W_enc))
    return Gradients(
        RowGradient(weights.W_enc, [SomeRows(every, W_enc)]),
        RowGradient(weights.W_dec, [SomeRows(every, W_dec)]),
        torch.ones_like(weights.b_enc),
        torch.ones_like(weights.b_dec),
    )


def optimizer_of(weights: Weights) -> UnitNormAdam:
    return UnitNormAdam(weights, OptimizerConfig(lr=0.1, warmup_fraction=0, decay_fraction=0), 8, choose())


def test_decoder_rows_stay_on_the_sphere() -> None:
    weights = initial_weights(torch.randn(20, 4), 8, seed=0)
    optimizer = optimizer_of(weights)
    generator = torch.Generator().manual_seed(3)
    for step in range(5):
        random = torch.randn(2, 8, 4, generator=generator)
        optimizer.step(gradients(weights, random[0], random[1]), NOTHING_KEPT, step, 5, GOES_ON)
    torch.testing.assert_close(weights.W_dec.norm(dim=1), torch.ones(8))


def test_the_pull_along_a_row_is_removed_before_adam_sees_it() -> None:
    weights = initial_weights(torch.randn(20, 4), 8, seed=0)
    across = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    across -= (across * weights.W_dec).sum(1, keepdim=True) * weights.W_dec
    optimizer = optimizer_of(weights)
    optimizer.step(gradients(weights, torch.zeros(8, 4), across + 3 * weights.W_dec), NOTHING_KEPT, 0, 10, GOES_ON)
    torch.testing.assert_close(optimizer.mean["W_dec"], 0.1 * across, rtol=1e-5, atol=1e-5)


def test_every_tensor_moves_as_torchs_adam_moves_it() -> None:
    weights = initial_weights(torch.randn(20, 4), 8, seed=0)
    names = ("W_enc", "b_enc", "b_dec")
    expected = {name: weights.named()[name].clone().requires_grad_() for name in names}
    torchs = torch.optim.Adam(list(expected.values()), lr=0.1, eps=6.25e-10)
    optimizer = optimizer_of(weights)
    for step in range(3):
        given = gradients(weights, torch.full((8, 4), 0.5 - step), torch.zeros(8, 4))
        for name in names:
            expected[name].grad = given.named()[name].clone()
        torchs.step()
        optimizer.step(given, NOTHING_KEPT, step, 3, GOES_ON)
    for name in names:
        torch.testing.assert_close(weights.named()[name], expected[name].detach())


def test_course_of_the_learning_rate_by_hand() -> None:
    # 10 steps, warm-up over 40 %, decay over 20 %: 1/4, 2/4, 3/4, 1, 1 … and 1 (10-8 = 2 left), 1/2 at the end.
    factors = [learning_rate_factor(step, 10, 0.4, 0.2) for step in range(10)]
    assert factors == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.5]


def test_default_rate_follows_the_rule() -> None:
    assert OptimizerConfig().rate(2**14) == 2e-4
    assert OptimizerConfig().rate(2**12) == 4e-4
