"""The plainest gate: relu, and a price on what passes it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.config import Relu
from saelab.kernels.codes import SparseCodes
from saelab.training.config import SaeConfig
from saelab.training.gates.gate import Flow, GateInput, Inference, Kept, temper_open_gate
from saelab.training.gates.penalty import PricedGate
from saelab.training.initial import Weights


class ReluGate(PricedGate):
    """`f = relu(z)`, loss + λ Σ f; with unit-norm decoder rows the L1 norm can't be cheated by scale.

    Source: arXiv 2309.08600.
    """

    def __init__(self, choice: Relu, sae: SaeConfig, device: torch.device) -> None:
        super().__init__(choice.penalty, sae.k, device)
        self.d_sae = sae.d_sae

    def extra(self, weights: Weights) -> dict[str, Tensor]:
        return {}

    def temper(self, weights: Weights) -> None:
        temper_open_gate(weights, self.d_sae)

    def open(self, batch: GateInput) -> Kept:
        codes = SparseCodes.from_mask(batch.z, batch.z > 0)
        return Kept(codes, codes.values)

    def backward(self, batch: GateInput, kept: Kept, grad_f: Float[Tensor, "nnz"], grad_x_hat: Tensor) -> Flow:
        price = self.pay(batch, kept.codes.nnz)
        grad_z = grad_f + price
        return Flow(grad_z, grad_z, penalty=price * kept.codes.values.sum())

    def inference(self, weights: Weights) -> Inference:
        return Inference(torch.zeros_like(weights.b_enc))
