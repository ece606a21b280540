"""What a training will take: worked out, and timed on two steps, before anything is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from saelab.activations.opening import open_source
from saelab.activations.plan import free_bytes
from saelab.activations.source import ActivationSource
from saelab.progress import si
from saelab.training import checkpoint
from saelab.training.config import TrainConfig
from saelab.training.initial import initial_weights, input_scale
from saelab.training.trainer import Trainer

TIMED_STEPS = 2


@dataclass(frozen=True)
class TrainPlan:
    """Sizes are upper bounds."""

    steps: int
    tokens: int
    parameters: int
    disk_bytes: int
    free_bytes: int
    memory_bytes: int
    """Weights, gradients, Adam's moments, one batch of scores and the buffer; the language model comes on top."""
    tokens_per_second: float
    """Of two steps here, making their activations included."""

    def lines(self) -> list[str]:
        """The plan as people read it."""
        minutes = self.tokens / self.tokens_per_second / 60
        return [
            f"tokens  {si(self.tokens)} in {self.steps} steps, {si(self.parameters)} parameters",
            f"disk    {self.disk_bytes / 1e9:.2f} GB of {self.free_bytes / 1e9:.2f} GB free",
            f"memory  {self.memory_bytes / 1e9:.2f} GB beside the model",
            f"time    {minutes:.1f} min at {si(self.tokens_per_second)} tokens/s",
        ]


def open_for(config: TrainConfig, buffer: int | None = None) -> ActivationSource:
    """The activations that `config` trains on."""
    return open_source(
        config.activations, config.model, config.site, config.corpus, config.policy,
        buffer=buffer or config.buffer, device=config.device, dtype=config.dtype,
        gradients=config.sae.affinity.kind == "gradient", seed=config.seed,
    )  # fmt: skip


def parameter_count(config: TrainConfig, d_in: int) -> int:
    """Numbers in W_enc, W_dec, b_enc and b_dec."""
    return 2 * config.sae.d_sae * d_in + config.sae.d_sae + d_in


def bytes_on_disk(config: TrainConfig, d_in: int) -> int:
    """The most a run takes: checkpoints (weights, Adam's two moments), one more being written, and the dictionary."""
    weights = 4 * parameter_count(config, d_in)
    return (checkpoint.KEEP + 1) * 3 * weights + weights


def plan(config: TrainConfig, out: Path) -> TrainPlan:
    """Tokens, bytes, memory, free disk and time. Writes nothing.

    Raises:
        UserError: whatever would stop the training at its start: a site that isn't there, text that can't be read, …
    """
    source = open_for(config, buffer=config.batch)
    sample = source.sample(config.batch)
    scale = input_scale(sample)
    trainer = Trainer(config, initial_weights(sample * scale, config.sae.d_sae, config.seed), scale)
    batches = source.batches(config.batch, config.seed)
    trainer.step(next(batches))  # the first step pays for warming up
    started = time.monotonic()
    for _ in range(TIMED_STEPS):
        trainer.step(next(batches))
    seconds = time.monotonic() - started
    weights, scores = 4 * parameter_count(config, source.d_in), 4 * config.batch * config.sae.d_sae
    return TrainPlan(
        steps=config.steps,
        tokens=config.steps * config.batch,
        parameters=parameter_count(config, source.d_in),
        disk_bytes=bytes_on_disk(config, source.d_in),
        free_bytes=free_bytes(out),
        memory_bytes=4 * weights + 2 * scores + 4 * source.d_in * config.buffer,
        tokens_per_second=TIMED_STEPS * config.batch / seconds,
    )
