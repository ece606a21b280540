"""Our own training steps: every allocation, and the encoder product that none of them can avoid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.steps.cases import BACKENDS, FLOORS, OURS
from benchmarks.steps.size import DEAD_SHRUNK, LONG_AGO, Size
from benchmarks.steps.turns import Turns
from saelab.activations.batch import ActivationBatch
from saelab.kernels.backend import choose
from saelab.kernels.product import Buffer, affine
from saelab.kernels.scoring import ScoringBackend
from saelab.training.config import TrainConfig
from saelab.training.profile import StageClock
from saelab.training.trainer import Trainer


class Ours:
    """Any number of our trainers in one process, each with weights and moments of its own.

    They share the buffer of scores, as trainings of a sweep do.
    """

    def __init__(
        self,
        cases: Iterable[str],
        size: Size,
        x: Float[Tensor, "n B d"],
        gradient: Float[Tensor, "n B d"],
        profile: bool,
    ) -> None:
        self.size, self.device = size, x.device
        tokens = torch.arange(len(x) * size.batch, device=x.device).view(len(x), -1)
        self.batches = [ActivationBatch(*parts) for parts in zip(x, x, gradient, tokens, strict=True)]
        self.trainers: dict[str, Trainer] = {}
        self.clocks: dict[str, StageClock] = {}
        self.steps: dict[str, Callable[[ActivationBatch], Any]] = {}
        for case in cases:
            if case in FLOORS:
                self.steps[case] = self._floor(case)
                continue
            trainer = self.trainers[case] = self._trainer(case)
            if profile:
                self.clocks[case] = StageClock(trainer)
            self.steps[case] = self._with_dead(trainer) if "dead" in case else trainer.step

    def train(self, turns: Turns) -> None:
        """Whatever case has its turn takes the batch."""
        for _ in turns:
            self.steps[turns.case](self.batches[turns.number])

    def findings(self) -> dict[str, dict[str, Any]]:
        """By case: share of rows certified in low precision, picks that fp32 would not make, milliseconds by stage."""
        found: dict[str, dict[str, Any]] = {case: {} for case in self.trainers}
        for case, trainer in self.trainers.items():
            if isinstance(trainer.backend, ScoringBackend):
                found[case] |= {"certified": trainer.backend.certificate.share, "wrong_picks": self._wrong(trainer)}
        for case, clock in self.clocks.items():
            found[case]["stages_ms"] = {name: 1000 * s / max(1, clock.steps) for name, s in clock.seconds.items()}
        return found

    def _trainer(self, case: str) -> Trainer:
        backend = BACKENDS[self.device.type].get(case, "cpu" if self.device.type == "cpu" else "triton")
        config = TrainConfig.model_validate(
            {"sae": {**OURS[case], "d_sae": self.size.d_sae, "k": self.size.k}, "batch": self.size.batch,
             "tokens": 10_000 * self.size.batch, "buffer": 2**20, "backend": backend, "device": self.device.type}
        )  # fmt: skip
        return Trainer.begin(config, self.batches[0])

    def _with_dead(self, trainer: Trainer) -> Callable[[ActivationBatch], Any]:
        dead = self.size.dead().to(self.device)
        trainer.weights.W_enc[dead] *= DEAD_SHRUNK

        def step(batch: ActivationBatch) -> None:
            trainer.statistics.idle[dead] = LONG_AGO
            trainer.step(batch)

        return step

    def _floor(self, case: str) -> Callable[[ActivationBatch], Any]:
        size, dtype = self.size, torch.bfloat16 if "bf16" in case else torch.float32
        buffer = Buffer.shared("scores") if self.device.type == "cpu" else Buffer()
        W = torch.randn(size.d_sae, size.d_in, device=self.device).to(dtype)
        b = W.new_zeros(size.d_sae)
        if "oneDNN" in case:
            return lambda batch: affine(batch.x, W, b, buffer, by_latent=False)
        inputs = {id(batch): batch.x.to(dtype) for batch in self.batches}
        return lambda batch: torch.addmm(b, inputs[id(batch)], W.T, out=buffer.take(size.batch, size.d_sae, W))

    def _wrong(self, trainer: Trainer) -> int:
        """Matches of one batch that the fp32 product would not keep."""
        batch, ours = self.batches[0], trainer.backend
        kept = trainer.look(batch).codes.latents.clone()
        trainer.backend = choose("cpu" if self.device.type == "cpu" else "triton", self.device)
        exact = trainer.look(batch).codes.latents
        trainer.backend = ours
        return int((kept != exact).sum())
