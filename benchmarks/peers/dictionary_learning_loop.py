"""dictionary_learning: `TopKTrainer.update`, its own step, with its own defaults (auxiliary loss and clipping on)."""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator

import torch
from dictionary_learning.trainers.top_k import TopKTrainer
from jaxtyping import Float
from torch import Tensor

from benchmarks.peers import Loop
from benchmarks.steps.size import DEAD_SHRUNK, LONG_AGO, Size

STEPS = 100_000  # for its schedule of learning rates


def new_trainer(size: Size, device: torch.device) -> TopKTrainer:
    return TopKTrainer(
        steps=STEPS, activation_dim=size.d_in, dict_size=size.d_sae, k=size.k, layer=0, lm_name="none",
        device=device.type,
    )  # fmt: skip


def build(size: Size, device: torch.device, dead: bool) -> Loop:
    trainer = new_trainer(size, device)
    silent = size.dead().to(device)
    if dead:
        trainer.ae.encoder.weight.data[silent] *= DEAD_SHRUNK

    def loop(batches: Iterator[Float[Tensor, "B d"]]) -> None:
        for number, batch in enumerate(batches):
            if dead:
                trainer.num_tokens_since_fired[silent] = LONG_AGO
            trainer.update(number, batch)

    return loop
