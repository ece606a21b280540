"""SAELens: `SAETrainer.step` around a `TopKTrainingSAE`, both with their own defaults."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from benchmarks.peers import Loop
from benchmarks.steps.size import DEAD_SHRUNK, LONG_AGO, Size

STEPS = 100_000  # that it is told to train for
LR, LR_END = 3e-4, 3e-5  # its runner fills the second in as a tenth of the first


def new_trainer(size: Size, device: torch.device) -> SAETrainer:
    sae = TopKTrainingSAEConfig(d_in=size.d_in, d_sae=size.d_sae, k=size.k, device=device.type)
    config = SAETrainerConfig(
        total_training_samples=STEPS * size.batch, train_batch_size_samples=size.batch, lr=LR, lr_end=LR_END,
        device=device.type,
    )  # fmt: skip
    return SAETrainer(config, TopKTrainingSAE(sae), data_provider=iter(()))


def build(size: Size, device: torch.device, dead: bool) -> Loop:
    trainer = new_trainer(size, device)
    silent = size.dead().to(device)
    if dead:
        trainer.sae.W_enc.data[:, silent] *= DEAD_SHRUNK

    def loop(batches: Iterator[Float[Tensor, "B d"]]) -> None:
        for batch in batches:
            if dead:
                trainer.n_forward_passes_since_fired[silent] = LONG_AGO
            trainer.step(batch)
            trainer.n_training_steps += 1  # which its own loop does after each step

    return loop
