"""A loss that is not a number: known to the device at once, told to the host later, and nothing has moved meanwhile."""

import math
from typing import Any

import pytest
import torch

from saelab.activations.batch import ActivationBatch
from saelab.training.soundness import Soundness, Trouble
from saelab.training.trainer import DivergedError, Trainer
from tests.training.test_gradients import ARCHITECTURES, batch_of, trainer_of

CPU = torch.device("cpu")


def test_the_first_bad_loss_is_remembered() -> None:
    soundness = Soundness(CPU)
    soundness.observe(torch.tensor(3.0), 0)
    assert not soundness.broken
    assert soundness.trouble() is None
    for step, loss in ((1, math.inf), (2, math.nan), (3, 4.0)):
        soundness.observe(torch.tensor(loss), step)
        assert soundness.broken
        assert soundness.trouble() == Trouble(1, math.inf)


def poisoned() -> ActivationBatch:
    batch = batch_of()
    x = batch.x.clone()
    x[0, 0] = torch.nan
    return ActivationBatch(x, x, batch.gradient, batch.tokens)


def patient(overrides: dict[str, Any], backend: str) -> Trainer:
    """One that asks late whether its losses were numbers, as on a GPU."""
    trainer = trainer_of(overrides, backend=backend)
    trainer.check_every = 1000
    return trainer


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", ["token", "mutual", "matryoshka", "gradient", "gated"])
def test_after_a_bad_loss_nothing_moves(name: str, backend: str) -> None:
    overrides = ARCHITECTURES[name] | {"sae.aux.kind": "aux_k", "sae.dead_after": 2}
    healthy, late = patient(overrides, backend), patient(overrides, backend)
    healthy.step(batch_of())
    for batch in (batch_of(), poisoned(), batch_of(), batch_of()):
        late.step(batch)
    with pytest.raises(DivergedError, match=f"the loss became nan at step {healthy.done}"):
        late.check()
    assert late.done == healthy.done
    expected, found = healthy.state(), late.state()
    on_the_host = {"gate.log_price", "gate.first_l0"}  # a penalised gate's price may have run ahead
    for tensor in expected.keys() - on_the_host:
        assert torch.equal(found[tensor], expected[tensor]), tensor


def test_where_asking_costs_nothing_it_is_asked_at_once() -> None:
    trainer = trainer_of({})
    done = trainer.done
    with pytest.raises(DivergedError, match=f"the loss became nan at step {done}"):
        trainer.step(poisoned())
    assert trainer.done == done


def test_a_device_that_runs_behind_is_asked_every_so_often() -> None:
    trainer = trainer_of({})
    trainer.check_every, trainer.done = 4, 5
    trainer.step(poisoned())
    for _ in range(2):
        trainer.step(batch_of())
    assert trainer.done == 8  # told before the fourth
    with pytest.raises(DivergedError, match="at step 5"):
        trainer.step(batch_of())
