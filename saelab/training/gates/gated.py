"""Gated: one affine map decides whether a latent fires, a tied one how strongly."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.config import Gated
from saelab.kernels.codes import SparseCodes
from saelab.training.config import SaeConfig
from saelab.training.gates.gate import Flow, GateInput, Inference, Kept, temper_open_gate
from saelab.training.gates.penalty import PricedGate
from saelab.training.initial import Weights


class GatedGate(PricedGate):
    """`f = 1[z > 0] · relu(m)`, `m = exp(r) · W_enc (x − centre) + b_mag`; z with `b_enc` is the gate.

    Loss: reconstruction + λ Σ relu(z) + |x − x_hat(relu(z))|² with a frozen decoder, which teaches the gate where to
    open, since nothing flows through the step 1[z > 0]. Source: arXiv 2404.16014, equations 6 to 8.
    """

    def __init__(self, choice: Gated, sae: SaeConfig, device: torch.device) -> None:
        super().__init__(choice.penalty, sae.k, device)
        self.d_sae = sae.d_sae

    def extra(self, weights: Weights) -> dict[str, Tensor]:
        return {"log_gain": torch.zeros_like(weights.b_enc), "b_mag": torch.zeros_like(weights.b_enc)}

    def temper(self, weights: Weights) -> None:
        temper_open_gate(weights, self.d_sae)

    def open(self, batch: GateInput) -> Kept:
        gate = SparseCodes.from_mask(batch.z, batch.z > 0)
        inference = self.inference(batch.weights)
        magnitude = inference.gain[gate.latents] * gate.values + inference.shift[gate.latents]
        return Kept(gate.with_values(magnitude.relu()), gate.values)

    def backward(self, batch: GateInput, kept: Kept, grad_f: Float[Tensor, "nnz"], grad_x_hat: Tensor) -> Flow:
        weights, latents, backend = batch.weights, kept.codes.latents, batch.backend
        price = self.pay(batch, (kept.codes.values > 0).sum())

        frozen = kept.codes.with_values(kept.z)
        error = batch.target - backend.decode(frozen, weights.W_dec) - weights.b_dec
        grad_gate = backend.value_gradients(error * (-2 / batch.numbers), frozen, weights.W_dec) + price

        gain = weights.extra["log_gain"].exp()[latents]
        grad_m = grad_f * (kept.codes.values > 0)
        linear = kept.z - weights.b_enc[latents]  # W_enc (x − centre)
        by_latent = {"log_gain": grad_m * gain * linear, "b_mag": grad_m}
        extra = {name: backend.latent_sums(kept.codes, grad) for name, grad in by_latent.items()}
        return Flow(grad_m * gain + grad_gate, grad_gate, extra, price * kept.z.sum())

    def inference(self, weights: Weights) -> Inference:
        gain = weights.extra["log_gain"].exp()
        return Inference(torch.zeros_like(gain), gain, weights.extra["b_mag"] - gain * weights.b_enc)
