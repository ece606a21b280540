"""metrics.jsonl: what a run says about itself while it trains. No account, no network."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from saelab.dictionaries.zipf import fit_zipf
from saelab.disk import append_jsonl
from saelab.disk.layout import RunPaths
from saelab.training.concentration import collapse
from saelab.training.deficit import FIT_POINTS, MIN_LIVE
from saelab.training.exchange import as_double
from saelab.training.trainer import StepResult, Trainer

SETTLED = 0.05  # share of training before anything is said about collapse
METRICS = "metrics"


class MetricsLog:
    """Sums up steps on the device and writes one line per window, so that the device is waited for seldom.

    A line holds: step, tokens, fvu (share of variance left unexplained in the window), l0 (mean active latents per
    token), dead (latents), aux_loss and penalty (means, weighted as in the loss), latents_in_use and tokens_in_use
    (effective numbers per batch), zipf (the law fitted to the running densities, with standard errors; null while too
    few latents fire), lr, tokens_per_s, seconds since the start.
    When matches concentrate on few latents or few tokens, it says so once on stderr.
    """

    def __init__(self, run: RunPaths) -> None:
        self.run = run
        self.started = time.monotonic()
        self.warned = False
        self._begin()

    def add(self, result: StepResult) -> None:
        """Take in one step."""
        concentration = result.concentration
        sums = torch.stack([
            as_double(number, result.squared_error.device)
            for number in (
                result.squared_error, result.squared_deviation, concentration.active, concentration.latents,
                concentration.tokens, result.penalty, result.aux_loss,
            )
        ])  # fmt: skip
        self.sums = sums if self.sums is None else self.sums + sums
        self.steps += 1
        self.lr = result.lr

    def write(self, trainer: Trainer) -> dict[str, Any] | None:
        """Write the window's line and begin the next; returns the line, None when the window is empty.

        Of several ranks all call it, and the first writes.
        """
        if self.sums is None:
            return None
        error, deviation, active, latents, tokens, penalty, aux_loss = self.sums.tolist()
        config, now = trainer.config, time.monotonic()
        mesh = trainer.exchange.mesh
        dead = int(mesh.latent.sum(trainer.statistics.dead(config.sae.dead_after).sum(), METRICS))
        fvu, l0 = error / deviation if deviation else None, active / (self.steps * config.batch)
        record: dict[str, Any] = {
            "step": trainer.done, "tokens": trainer.done * config.batch, "fvu": fvu, "l0": l0, "dead": dead,
            "aux_loss": aux_loss / self.steps, "penalty": penalty / self.steps,
            "latents_in_use": latents / self.steps, "tokens_in_use": tokens / self.steps,
            "zipf": _law(trainer), "lr": self.lr,
            "tokens_per_s": self.steps * config.batch / (now - self.window_started), "seconds": now - self.started,
        }  # fmt: skip
        if mesh.ranks.first:
            append_jsonl(self.run.metrics, record)
            self._warn(latents / self.steps, tokens / self.steps, trainer)
        self._begin()
        return record

    def _warn(self, latents: float, tokens: float, trainer: Trainer) -> None:
        config = trainer.config
        progress = trainer.done / config.steps
        # The first steps prove nothing: every training begins with a few latents that fit the mean.
        if self.warned or progress < SETTLED:
            return
        trouble = collapse(latents, tokens, config.sae.k_at(progress), config.sae.d_sae, config.batch)
        if trouble:
            print(f"{self.run.root.name}: step {trainer.done}: {trouble}", file=sys.stderr)
            self.warned = True

    def _begin(self) -> None:
        self.sums: Tensor | None = None
        self.steps, self.lr = 0, 0.0
        self.window_started = time.monotonic()


def _law(trainer: Trainer) -> dict[str, Any] | None:
    """Zipf–Mandelbrot fit of rank against running density."""
    densities = trainer.statistics.everywhere(trainer.statistics.densities())
    if int((densities > 0).sum()) < MIN_LIVE:
        return None
    return asdict(fit_zipf(densities, points=FIT_POINTS))
