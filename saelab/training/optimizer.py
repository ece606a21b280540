"""Adam with unit-norm decoder rows, and the course of its learning rate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab.training.config import OptimizerConfig
from saelab.training.gradients import Gradients
from saelab.training.initial import Weights

EPSILON = 6.25e-10  # arXiv 2406.04093, appendix A: mean losses make small gradients


class UnitNormAdam:
    """Adam over the four tensors; decoder rows stay on the unit sphere (arXiv 2406.04093, appendix A.3).

    The part of a decoder row's gradient along the row is removed before the step, and the row is renormalised after.
    """

    def __init__(self, weights: Weights, config: OptimizerConfig) -> None:
        self.weights, self.config = weights, config
        self.peak = config.rate(weights.W_dec.shape[0])
        self.adam = torch.optim.Adam(
            list(weights.named().values()), lr=self.peak, betas=(config.beta1, config.beta2), eps=EPSILON, fused=True
        )

    def step(self, gradients: Gradients, step: int, steps: int) -> float:
        """Move the weights; returns the learning rate used."""
        W_dec = self.weights.W_dec
        along = (gradients.W_dec * W_dec).sum(1, keepdim=True)
        gradients.W_dec.addcmul_(along, W_dec, value=-1)
        lr = self.peak * learning_rate_factor(step, steps, self.config.warmup_fraction, self.config.decay_fraction)
        self.adam.param_groups[0]["lr"] = lr
        for name, tensor in self.weights.named().items():
            tensor.grad = gradients.named()[name]
        self.adam.step()
        normalize(W_dec, dim=1, out=W_dec)
        return lr

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, as flat named tensors."""
        return {
            f"adam.{name}.{key}": value
            for name, tensor in self.weights.named().items()
            for key, value in self.adam.state[tensor].items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        for name, tensor in self.weights.named().items():
            prefix = f"adam.{name}."
            self.adam.state[tensor] = {
                key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
            }


def learning_rate_factor(step: int, steps: int, warmup_fraction: float, decay_fraction: float) -> float:
    """Linear from 0 to 1 over the first share of `steps`, linear to 0 over the last; both open-ended (never 0)."""
    warmup, decay = warmup_fraction * steps, decay_fraction * steps
    rising = (step + 1) / warmup if step + 1 < warmup else 1.0
    falling = (steps - step) / decay if steps - step < decay else 1.0
    return min(rising, falling, 1.0)
