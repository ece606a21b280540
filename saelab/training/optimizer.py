"""Adam with unit-norm decoder rows, and the course of its learning rate."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelab.kernels.backend import AdamStep, Backend
from saelab.kernels.codes import SparseCodes
from saelab.training.config import OptimizerConfig
from saelab.training.exchange import ALONE, ROWS, Exchange
from saelab.training.gradients import Gradients
from saelab.training.initial import Weights
from saelab.training.rows import RowGradient

MATRICES = ("W_enc", "W_dec")
EPSILON = 6.25e-10  # arXiv 2406.04093, appendix A: mean losses make small gradients


class UnitNormAdam:
    """Adam over the four tensors; decoder rows stay on the unit sphere (arXiv 2406.04093, appendix A.3).

    The part of a decoder row's gradient along the row is removed before the step, and the row is renormalised after.
    Where row sums are exchanged (`exchange.py`), this rank has the moments of its part of the matrices' rows alone.

    Args:
        d_sae: number of all latents, of which `weights` may be a shard.
    """

    def __init__(
        self, weights: Weights, config: OptimizerConfig, d_sae: int, backend: Backend, exchange: Exchange = ALONE
    ) -> None:
        self.weights, self.config, self.backend, self.axis = weights, config, backend, exchange.summed
        self.peak = config.rate(d_sae)
        own = self.axis.part(len(weights.W_dec))
        moved = weights.named() | {name: weights.named()[name][own.start : own.stop] for name in MATRICES}
        self.mean = {name: torch.zeros_like(tensor) for name, tensor in moved.items()}
        self.square = {name: torch.zeros_like(tensor) for name, tensor in moved.items()}

    def step(self, gradients: Gradients, codes: SparseCodes, step: int, steps: int, frozen: Bool[Tensor, ""]) -> float:
        """Move the weights, unless they are `frozen`; returns the learning rate used.

        Args:
            codes: the batch's kept matches, by which the backend decides how many rows it takes at a time.
        """
        lr = self.peak * learning_rate_factor(step, steps, self.config.warmup_fraction, self.config.decay_fraction)
        adam = AdamStep(step + 1, lr, self.config.beta1, self.config.beta2, EPSILON, frozen)
        if self.axis.size == 1:
            for latents in self.backend.passes(codes):
                self._move("W_enc", gradients.W_enc.rows(latents), adam, latents)
                self._move("W_dec", gradients.W_dec.rows(latents), adam, latents)
        else:
            self._move_part("W_enc", gradients.W_enc, adam)
            self._move_part("W_dec", gradients.W_dec, adam)
        for name, gradient in gradients.vectors().items():
            self._move(name, gradient, adam, range(len(gradient)))
        return lr

    def _move_part(self, name: str, gradient: RowGradient, step: AdamStep) -> None:
        """Each rank moves its part of the rows by the sum of all ranks' gradients, and gets the others' from them."""
        weight = self.weights.named()[name]
        parts = self.axis.parts(len(weight))
        own = parts[self.axis.index]
        moved, sums = weight[own.start : own.stop], self.axis.sum_of_part(gradient.whole(), ROWS)
        self.backend.adam(moved, sums, self.mean[name], self.square[name], step, unit_rows=name == "W_dec")
        weight.copy_(self.axis.gather(moved, ROWS, [len(part) for part in parts]))

    def _move(self, name: str, gradient: Float[Tensor, "n *d"], step: AdamStep, rows: range) -> None:
        tensors = (self.weights.named()[name], self.mean[name], self.square[name])
        weight, mean, square = (tensor[rows.start : rows.stop] for tensor in tensors)
        self.backend.adam(weight, gradient, mean, square, step, unit_rows=name == "W_dec")

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, as flat named tensors."""
        mean = {f"adam.{name}.exp_avg": tensor for name, tensor in self.mean.items()}
        return mean | {f"adam.{name}.exp_avg_sq": tensor for name, tensor in self.square.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        for name in self.mean:
            self.mean[name] = state[f"adam.{name}.exp_avg"]
            self.square[name] = state[f"adam.{name}.exp_avg_sq"]


def learning_rate_factor(step: int, steps: int, warmup_fraction: float, decay_fraction: float) -> float:
    """Linear from 0 to 1 over the first share of `steps`, linear to 0 over the last; both open-ended (never 0)."""
    warmup, decay = warmup_fraction * steps, decay_fraction * steps
    rising = (step + 1) / warmup if step + 1 < warmup else 1.0
    falling = (steps - step) / decay if steps - step < decay else 1.0
    return min(rising, falling, 1.0)
