"""Where a training step's time goes, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from saelab.training.trainer import Trainer

REST = "rest of the step"
STAGES = {
    "pre_activations": "encoder product",
    "encode_token": "scoring and selection",
    "encode_mutual": "scoring and selection",
    "select_token": "selection",
    "select_mutual": "selection",
    "select_feature": "selection",
    "decode": "decode",
    "value_gradients": "gradient of kept values",
    "row_gradients": "gradients of weight rows",
    "adam": "Adam, unit norm",
}


class StageClock:
    """Times a trainer's stages by wrapping what it calls; a trainer without a clock is untouched.

    A stage inside another counts for itself alone, so that the stages add up to the step.

    Attributes:
        seconds: by stage, in the order in which they first ran.
        steps: how many steps were timed.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.seconds: dict[str, float] = {}
        self.steps = 0
        self._device = trainer.weights.W_enc.device
        self._stack: list[str] = []
        self._since = 0.0
        for method, stage in STAGES.items():
            if hasattr(trainer.backend, method):
                self._wrap(trainer.backend, method, stage)
        self._wrap(trainer.gate, "open", "choice of matches")
        self._wrap(trainer.gate, "backward", "gate, backward")
        self._wrap(trainer, "_auxiliary", "auxiliary loss")
        self._wrap(trainer.optimizer, "step", "optimiser")
        self._wrap(trainer.statistics, "update", "statistics")
        self._wrap(trainer, "step", REST)

    def table(self) -> str:
        """Milliseconds per step and share of it, one stage a line."""
        total = sum(self.seconds.values()) or 1.0
        lines = [
            f"{stage:28}{1000 * seconds / max(1, self.steps):10.1f} ms{100 * seconds / total:7.1f} %"
            for stage, seconds in self.seconds.items()
        ]
        return "\n".join([*lines, f"{'step':28}{1000 * total / max(1, self.steps):10.1f} ms"])

    def _wrap(self, owner: Any, method: str, stage: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._turn()
            self._stack.append(stage)
            try:
                return inner(*args, **kwargs)
            finally:
                self._turn()
                self._stack.pop()
                self.steps += stage == REST

        setattr(owner, method, timed)

    def _turn(self) -> None:
        """Book the time since the last turn on the stage that is running."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        if self._stack:
            stage = self._stack[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now
