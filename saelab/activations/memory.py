"""The memory of a harvest, said beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from saelab.activations.config import HarvestConfig
from saelab.activations.sites import last_layer
from saelab.activations.subsample import most_drawn
from saelab.errors import UserError
from saelab.models import LanguageModel, Site
from saelab.models.devices import available_memory

TOKEN_BYTES = 21  # id 4, document 8, position 4, row 4, keep 1


@dataclass(frozen=True)
class Memory:
    """Bytes. Every number is an estimate from above but `free`."""

    device: torch.device
    """Where the model runs."""
    weights: int
    """Of the model, which is loaded."""
    one_pass: int
    """What a forward pass takes beyond them (with gradients, a backward pass too)."""
    shard: int
    """Buffers of one shard while it is written; never on a GPU."""
    free: int
    """What the machine can still give."""
    free_on_device: int
    """What the GPU can still give; of a model on the CPU, the same as `free`."""

    @property
    def apart(self) -> bool:
        """Whether the model has memory of its own."""
        return self.device.type == "cuda"

    def of_ranks(self, n: int) -> Memory:
        """Of `n` processes on one machine, each with a GPU of its own if it has one."""
        model = 1 if self.apart else n
        return replace(self, weights=self.weights * model, one_pass=self.one_pass * model, shard=self.shard * n)

    def line(self) -> str:
        """As people read it."""
        parts = {"weights": self.weights, "a forward pass": self.one_pass, "a shard": self.shard}
        said = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
        if not self.apart:
            return f"{sum(parts.values()) / 1e9:.2f} GB of {(self.free + self.weights) / 1e9:.2f} GB: {said}"
        gpu = (self.weights + self.one_pass) / 1e9, (self.free_on_device + self.weights) / 1e9
        return f"{gpu[0]:.2f} GB of {gpu[1]:.2f} GB on {self.device}, {self.shard / 1e9:.2f} GB beside it: {said}"

    def refuse(self) -> None:
        """Raise UserError if it can't be had."""
        where = [("memory", self.shard + (0 if self.apart else self.one_pass), self.free)]
        if self.apart:
            where.append((f"memory of {self.device}", self.one_pass, self.free_on_device))
        for what, needed, free in where:
            if needed > free:
                raise UserError(
                    f"the harvest needs {needed / 1e9:.2f} GB of {what} beside the model's weights, but only "
                    f"{free / 1e9:.2f} GB are free; a smaller batch or smaller shard_tokens would fit"
                )


def memory_of(config: HarvestConfig, model: LanguageModel, sites: Sequence[Site], vectors: Sequence[int]) -> Memory:
    """What a harvest with a loaded model takes; `vectors` are the stored bytes of each of a token's columns."""
    context = config.policy.context
    shard_tokens = min(config.shard_rows, config.rows) * context
    # The largest column twice more while it is written: a copy, and the bytes of its file.
    shard = most_drawn(shard_tokens, config.subsample) * (sum(vectors) + 2 * max(vectors)) + shard_tokens * TOKEN_BYTES
    layers = last_layer([str(site) for site in sites])
    return Memory(
        device=model.device,
        weights=model.size.weights_bytes,
        one_pass=model.size.pass_bytes(
            min(config.batch, config.rows), context, None if layers is None else layers + 1, config.gradients
        ),
        shard=shard,
        free=available_memory(torch.device("cpu")),
        free_on_device=available_memory(model.device),
    )
