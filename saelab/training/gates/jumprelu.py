"""JumpReLU: a learnt threshold per latent, and a price on the number of matches above it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.config import JumpRelu
from saelab.kernels.codes import SparseCodes
from saelab.training.config import SaeConfig
from saelab.training.gates.gate import Flow, GateInput, Inference, Kept
from saelab.training.gates.penalty import PricedGate
from saelab.training.initial import Weights


class JumpReluGate(PricedGate):
    """`f = z · 1[z > θ]`, loss + λ L0; θ learns by straight-through estimates in a window of width ε around it.

    `∂f/∂θ ≈ −θ/ε · 1[|z − θ| < ε/2]`, `∂L0/∂θ ≈ −1/ε · 1[|z − θ| < ε/2]`; θ = exp(log_threshold) stays positive.
    Source: arXiv 2407.14435, equations 11 and 12. ε and the first θ are in units of √d: there inputs have unit mean
    square norm, here d.
    """

    def __init__(self, choice: JumpRelu, sae: SaeConfig, d_in: int, device: torch.device) -> None:
        super().__init__(choice.penalty, sae.k, device)
        self.bandwidth = choice.bandwidth * math.sqrt(d_in)
        self.first = choice.threshold * math.sqrt(d_in)

    def extra(self, weights: Weights) -> dict[str, Tensor]:
        return {"log_threshold": torch.full_like(weights.b_enc, math.log(self.first))}

    def temper(self, weights: Weights) -> None:
        """The usual start is right: few matches are kept."""

    def open(self, batch: GateInput) -> Kept:
        codes = SparseCodes.from_mask(batch.z, batch.z > batch.weights.extra["log_threshold"].exp())
        return Kept(codes, codes.values)

    def backward(self, batch: GateInput, kept: Kept, grad_f: Float[Tensor, "nnz"], grad_x_hat: Tensor) -> Flow:
        threshold = batch.weights.extra["log_threshold"].exp()
        price = self.pay(batch, kept.codes.nnz)
        near = SparseCodes.from_mask(batch.z, (batch.z - threshold).abs() < self.bandwidth / 2)
        grad_near = batch.backend.value_gradients(grad_x_hat, near, batch.weights.W_dec)
        pull = -(threshold[near.latents] * grad_near + price) / self.bandwidth
        grad_threshold = batch.backend.latent_sums(near, pull.to(threshold.dtype))
        return Flow(grad_f, grad_f, {"log_threshold": grad_threshold * threshold}, price * kept.codes.nnz)

    def inference(self, weights: Weights) -> Inference:
        return Inference(weights.extra["log_threshold"].exp())
