"""Gates beyond their gradients: what they keep, how λ finds its way, and that they learn."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.dictionaries.config import SparsityPenalty
from saelab.training.gates.penalty import GAIN, MOST, Price
from tests.training.test_gradients import B, F, batch_of, trainer_of

CPU = torch.device("cpu")


def test_a_given_price_rises_in_a_straight_line() -> None:
    price = Price(SparsityPenalty(coefficient=4.0, warmup_fraction=0.5), 3, CPU)
    assert [float(price.now(progress)) for progress in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0, 2, 4, 4])
    price.observe(1000, 10, 0.1)
    assert float(price.now(1.0)) == pytest.approx(4)  # given is given


def test_a_steered_price_by_hand() -> None:
    price = Price(SparsityPenalty(warmup_fraction=0.5), 4, CPU)
    price.observe(64 * 10, 10, 0.0)  # the first batch says where the way begins: 64 a token
    assert float(price.log_price) == 0.0
    price.observe(24 * 10, 10, 0.25)  # half-way between 64 and 4 on a log scale lies 16
    assert float(price.log_price) == pytest.approx(GAIN * math.log(24 / 16))
    before = float(price.log_price)
    price.observe(1, 10, 0.5)  # far below 4: counts as a factor of 2
    assert float(price.log_price) == pytest.approx(before - GAIN * MOST)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=20), st.floats(0, 1))
def test_a_steered_price_goes_on_from_its_state(counts: list[int], progress: float) -> None:
    one, other = (Price(SparsityPenalty(), 8, CPU) for _ in range(2))
    for count in counts:
        one.observe(count, 100, progress)
    other.restore(one.state())
    one.observe(77, 100, progress)
    other.observe(77, 100, progress)
    assert float(one.now(progress)) == float(other.now(progress))


def test_relu_keeps_what_is_positive_and_jumprelu_what_is_above_its_threshold() -> None:
    for preset in ("relu", "jumprelu"):
        trainer, batch = trainer_of({"sae.preset": preset}), batch_of()
        x, _ = trainer.scaling.apply(batch)
        z = (x - trainer.weights.b_dec) @ trainer.weights.W_enc.T + trainer.weights.b_enc
        floor = trainer.weights.extra["log_threshold"].exp() if preset == "jumprelu" else torch.zeros(F)
        expected = torch.where(z > floor, z, 0.0)
        torch.testing.assert_close(trainer.look(batch).codes.to_dense(), expected)


def test_a_gate_decides_and_a_magnitude_says_how_much() -> None:
    trainer, batch = trainer_of({"sae.preset": "gated"}), batch_of()
    w = trainer.weights
    linear = (batch.x * 1.5 - w.b_dec) @ w.W_enc.T
    expected = ((linear + w.b_enc) > 0) * (w.extra["log_gain"].exp() * linear + w.extra["b_mag"]).relu()
    torch.testing.assert_close(trainer.look(batch).codes.to_dense(), expected)


def test_the_budget_warms_up() -> None:
    trainer, batch = trainer_of({"sae.k_warmup.start": 11, "sae.k_warmup.fraction": 1.0}), batch_of()
    # 8 steps from 11 to 3: after 5 of them 6 latents per token are left.
    assert trainer.look(batch).codes.nnz == 6 * B
    trainer = trainer_of({"sae.preset": "mutual-choice", "sae.k_warmup.start": 4, "sae.k_warmup.fraction": 1.0})
    assert trainer.look(batch).codes.nnz == round((4 - 5 / 8) * B)
