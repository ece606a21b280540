"""The synthetic truth on the road of all trainings."""

from itertools import islice

import pytest
import torch

from saelab.activations.source import ActivationPass, ActivationSource
from saelab.config import load_config
from saelab.evaluation.truth.config import TruthConfig
from saelab.evaluation.truth.recovery import recovery
from saelab.evaluation.truth.source import TruthPass
from saelab.evaluation.truth.synthetic import Truth
from saelab.training.config import TrainConfig
from saelab.training.finish import finished_dictionary
from saelab.training.trainer import Trainer


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth.make(TruthConfig(d_in=24, n_features=32, active=3, families=4, shift=4))


def test_a_batch_is_a_function_of_seed_and_number(truth: Truth) -> None:
    source = ActivationSource(TruthPass(truth))
    first = list(islice(source.batches(32, seed=5), 4))
    again = next(source.batches(32, seed=5, start=3))
    assert torch.equal(first[3].x, again.x)
    assert torch.equal(first[3].tokens, torch.arange(96, 128))
    other = [*first[:3], next(source.batches(32, seed=6, start=3)), source.sample(32)]
    assert not any(torch.equal(again.x, batch.x) for batch in other)
    assert first[0].target is first[0].x


@pytest.mark.parametrize("preset", ["topk", "feature-choice"])
def test_a_trainer_recovers_most_of_an_easy_truth(truth: Truth, preset: str) -> None:
    source: ActivationPass = TruthPass(truth)
    config = load_config(
        TrainConfig,
        None,
        {
            "sae.preset": preset, "sae.d_sae": 40, "sae.k": 3, "sae.dead_after": 20_000, "tokens": 512 * 500,
            "batch": 512, "buffer": 512, "optimizer.lr": 3e-3,
        },
    )  # fmt: skip
    (sample,) = source.sample(4096)
    trainer = Trainer.begin(config, sample)
    untrained = recovery(finished_dictionary(trainer, source.origin(0)), truth, tokens=4096)
    for (batch,) in islice(source.batches(config.batch, config.order), config.steps):
        trainer.step(batch)
    trained = recovery(finished_dictionary(trainer, source.origin(0)), truth, tokens=16_384)
    assert untrained.recovered < 0.1
    assert trained.recovered > 0.4
    assert (trained.f1 or 0) > 0.5
    assert trained.fvu < 0.3
