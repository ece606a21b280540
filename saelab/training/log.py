"""metrics.jsonl: what a run says about itself while it trains. No account, no network."""

from __future__ import annotations

import time

import torch

from saelab.disk import append_jsonl
from saelab.disk.layout import RunPaths
from saelab.training.trainer import StepResult, Trainer


class MetricsLog:
    """Sums up steps on the device and writes one line per window, so that the device is waited for seldom.

    A line holds: step, tokens, fvu (share of variance left unexplained in the window), l0 (mean active latents per
    token), dead (latents), aux_loss (mean, weighted as in the loss), lr, tokens_per_s, seconds since the start.
    """

    def __init__(self, run: RunPaths) -> None:
        self.run = run
        self.started = time.monotonic()
        self._begin()

    def add(self, result: StepResult) -> None:
        """Take in one step."""
        sums = torch.stack([result.squared_error.double(), result.squared_deviation.double(), result.active.double()])
        self.sums = sums if self.sums is None else self.sums + sums
        self.aux_loss += result.aux_loss
        self.steps += 1
        self.lr = result.lr

    def write(self, trainer: Trainer) -> str:
        """Write the window's line and begin the next; returns a short note for the progress bar."""
        if self.sums is None:
            return ""
        error, deviation, active = self.sums.tolist()
        batch, now = trainer.config.batch, time.monotonic()
        dead = int(trainer.statistics.dead(trainer.config.sae.dead_after).sum())
        fvu, l0 = error / deviation if deviation else None, active / (self.steps * batch)
        record = {
            "step": trainer.done, "tokens": trainer.done * batch, "fvu": fvu, "l0": l0, "dead": dead,
            "aux_loss": self.aux_loss / self.steps, "lr": self.lr,
            "tokens_per_s": self.steps * batch / (now - self.window_started), "seconds": now - self.started,
        }  # fmt: skip
        append_jsonl(self.run.metrics, record)
        self._begin()
        return f"FVU {fvu:.3f} · L0 {l0:.1f} · {dead} dead" if fvu is not None else ""

    def _begin(self) -> None:
        self.sums: torch.Tensor | None = None
        self.aux_loss, self.steps, self.lr = 0.0, 0, 0.0
        self.window_started = time.monotonic()
