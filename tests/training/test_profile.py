"""The stage clock: it counts every moment once and leaves the training as it is."""

import pytest
import torch

from saelab.training import profile
from saelab.training.profile import REST, StageClock
from tests.training.test_gradients import batch_of, trainer_of


def test_a_profiled_training_is_the_same_training() -> None:
    plain, timed = trainer_of({}), trainer_of({})
    clock = StageClock(timed)
    for _ in range(2):
        plain.step(batch_of())
        timed.step(batch_of())
    assert clock.steps == 2
    assert {"encoder product", "selection", "decode", "Adam, unit norm", "statistics", REST} <= set(clock.seconds)
    for name, tensor in plain.state().items():
        assert torch.equal(timed.state()[name], tensor), name


def test_a_stage_within_a_stage_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: the clock ticks once a look, and every look books one second on the stage that was running."""
    trainer = trainer_of({})
    ticks = iter(range(10**6))
    monkeypatch.setattr(profile.time, "perf_counter", lambda: float(next(ticks)))
    clock = StageClock(trainer)
    trainer.step(batch_of())
    looks = next(ticks)
    assert sum(clock.seconds.values()) == looks - 1  # the first look starts, the last ends
    assert clock.seconds["encoder product"] == 1  # entered once, nothing inside
    assert clock.seconds["optimiser"] > 1  # gradients of rows and Adam run inside
    assert clock.table().splitlines()[-1].split()[0] == "step"
