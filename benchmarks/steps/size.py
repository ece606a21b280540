"""The size of a training step, and activations of that size whose sparse truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

BATCHES = 4
DIRECTIONS, ACTIVE = 8192, 32
DEAD_EVERY = 10  # every tenth latent is dead where a case says so
DEAD_SHRUNK = (
    0.1  # a dead latent's encoder row, relative to a living one's: positive for half of the tokens, never best
)
LONG_AGO = 10**12  # tokens since a dead latent fired


@dataclass(frozen=True)
class Size:
    """What a step's work depends on; written d_sae,k,batch or d_sae,k,batch,d_in."""

    d_sae: int
    k: int
    batch: int
    d_in: int = 768

    @classmethod
    def read(cls, text: str) -> Size:
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        text = f"{self.d_sae},{self.k},{self.batch}"
        return text if self.d_in == 768 else f"{text},{self.d_in}"

    def dead(self) -> Bool[Tensor, "F"]:
        """The latents that a case with dead ones silences."""
        return torch.arange(self.d_sae) % DEAD_EVERY == 0


def write_activations(path: Path, size: Size) -> None:
    """Some batches for every worker: sums of 32 of 8,192 directions whose frequencies fall off as rank^-0.8, and noise.

    E|x|² is about d_in. `gradient` stands for the language model's loss gradient, which one of our cases reads.
    """
    generator = torch.Generator().manual_seed(0)
    directions = normalize(torch.randn(DIRECTIONS, size.d_in, generator=generator), dim=1)
    frequency = (torch.arange(DIRECTIONS) + 50.0) ** -0.8
    inputs = []
    for _ in range(BATCHES):
        chosen = torch.multinomial(frequency.expand(size.batch, -1), ACTIVE, generator=generator)
        strength = 1 + torch.rand(size.batch, ACTIVE, generator=generator)
        x = 3 * embedding_bag(chosen, directions, per_sample_weights=strength, mode="sum")
        inputs.append((x + 0.3 * torch.randn(x.shape, generator=generator)) * (size.d_in / 768) ** 0.5)
    x = torch.stack(inputs)
    save_file({"x": x, "gradient": torch.randn(x.shape, generator=generator) * 1e-3}, path)


def read_activations(path: Path, device: str) -> tuple[Float[Tensor, "n B d"], Float[Tensor, "n B d"]]:
    """What `write_activations` wrote: inputs and gradients."""
    tensors = load_file(path, device=device)
    return tensors["x"], tensors["gradient"]
