"""EleutherAI's sparsify: `Trainer.fit` as it comes, around a "language model" that only hands out activations.

Its trainer has no function for one step: forward and backward happen in a hook on a module, the optimiser moves
between two forward passes. So the hooked module is the identity, and one step is from one batch to the next.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float, Int
from sparsify import SparseCoderConfig, TrainConfig, Trainer
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.peers import Loop
from benchmarks.steps.size import DEAD_SHRUNK, LONG_AGO, Size

SITE = "site"
ENDLESS = 10**9


class Rows(Dataset[dict[str, Tensor]]):
    """Token ids that nobody reads, one row a batch."""

    def __init__(self, tokens: int) -> None:
        self.row = torch.zeros(tokens, dtype=torch.int64)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.row}


class Activations(nn.Module):
    """What sparsify takes for a language model: its one module passes on the batch whose turn it is."""

    def __init__(self, width: int, device: torch.device) -> None:
        super().__init__()
        self.site = nn.Identity()
        self.device = device
        self.dummy_inputs = {"input_ids": torch.zeros(1, 1, dtype=torch.int64)}
        self.batches: Iterator[Float[Tensor, "B d"]] = iter(torch.zeros(1, 1, width, device=device))

    @property
    def base_model(self) -> Activations:
        return self

    def forward(self, input_ids: Int[Tensor, "1 B"]) -> Float[Tensor, "1 B d"]:
        return self.site(next(self.batches)[None])


def new_trainer(size: Size, device: torch.device, optimizer: Literal["signum", "adam"], dead: bool) -> Trainer:
    """Sparsify's trainer with its own defaults, but for dead latents: its auxiliary loss is off unless asked for."""
    config = TrainConfig(
        sae=SparseCoderConfig(num_latents=size.d_sae, k=size.k),
        batch_size=1,  # rows of tokens
        hookpoints=[SITE],
        optimizer=optimizer,
        auxk_alpha=1 / 32 if dead else 0.0,
        save_every=ENDLESS,
        log_to_wandb=False,
    )
    return Trainer(config, Rows(size.batch), Activations(size.d_in, device))


def build(size: Size, device: torch.device, dead: bool, optimizer: Literal["signum", "adam"]) -> Loop:
    trainer = new_trainer(size, device, optimizer, dead)
    silent = size.dead().to(device)
    if dead:
        trainer.saes[SITE].encoder.weight.data[silent] *= DEAD_SHRUNK

    def silenced(batches: Iterator[Float[Tensor, "B d"]]) -> Iterator[Float[Tensor, "B d"]]:
        for batch in batches:
            trainer.num_tokens_since_fired[SITE][silent] = LONG_AGO
            yield batch

    def loop(batches: Iterator[Float[Tensor, "B d"]]) -> None:
        trainer.model.batches = silenced(batches) if dead else batches
        trainer.fit()

    return loop
