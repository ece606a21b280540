"""Dictionaries trained on the task: one per node, on its activations in the fit prompts, held in memory.

Source: arXiv 2405.08366 trains on the activations at the node's own position. No token policy can say "the position of
S2", so these trainings take a matrix `[n, d]` where others take a pass over text; trainer, losses and the finished
dictionary are the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.activations.source import Origin
from saelab.config import build
from saelab.dictionaries.config import FeatureChoice, MutualChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.ioi.config import TaskSaeConfig
from saelab.training.config import Preset, TrainConfig
from saelab.training.finish import finished_dictionary
from saelab.training.run import CHECK_BATCHES, keeping_its_budget
from saelab.training.trainer import Trainer

DEAD_AFTER_SHARE = 8  # a latent that is silent for an eighth of training is dead


def training_of(preset: Preset, sizes: TaskSaeConfig, origin: Origin, seed: int) -> TrainConfig:
    """The training of one node's dictionary, as a run's config.yaml records it."""
    sae = {"preset": preset, "d_sae": sizes.d_sae, "k": sizes.k}
    values = {
        "model": origin.model, "site": origin.site, "corpus": origin.corpus, "policy": origin.policy,
        "sae": {**sae, "dead_after": max(1, sizes.tokens // DEAD_AFTER_SHARE)}, "optimizer": {"lr": sizes.lr},
        "tokens": sizes.tokens, "batch": sizes.batch, "buffer": sizes.batch, "checkpoint_every": sizes.tokens,
        "seed": seed,
    }  # fmt: skip
    return build(TrainConfig, values, where="sae")


def train_on(x: Float[Tensor, "n d"], config: TrainConfig, origin: Origin, frozen_decoder: bool = False) -> Dictionary:
    """A dictionary of these activations, whose inference rule keeps about k latents of them.

    Args:
        config: what is trained and for how long; where activations come from is not looked at.
        frozen_decoder: leave the decoder's random rows as they are and train the rest (arXiv 2405.08366, the sanity
            baseline). They are put back after every step, which is what never moving them comes to: no gradient of
            another weight depends on the step that they would have made.

    Raises:
        DivergedError: the loss became infinite or NaN.
    """
    batches = _batches(x.float(), config.batch, config.order)
    trainer = Trainer.begin(config, _batch(x.float()))
    first = trainer.weights.W_dec.clone()
    for _ in range(config.steps):
        trainer.step(next(batches))
        if frozen_decoder:
            trainer.weights.W_dec.copy_(first)
    trainer.check()
    has_thresholds = isinstance(config.sae.allocation, MutualChoice | FeatureChoice)
    checks = [next(batches).x for _ in range(CHECK_BATCHES)] if has_thresholds else []
    return keeping_its_budget(finished_dictionary(trainer, origin), checks, f"{config.sae.architecture} {origin.site}")


def _batches(x: Float[Tensor, "n d"], size: int, seed: int) -> Iterator[ActivationBatch]:
    """Endless batches; every epoch has every row once, reshuffled."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rows) < size:
            rows = torch.cat([rows, torch.randperm(len(x), generator=generator)])
        yield _batch(x[rows[:size]])
        rows = rows[size:]


def _batch(x: Float[Tensor, "B d"]) -> ActivationBatch:
    return ActivationBatch(x, x, None, torch.arange(len(x)))
