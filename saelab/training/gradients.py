"""Gradients of a dictionary's losses, written out: they exist only at kept matches, so no dense backward is needed.

Shape legend: B tokens · d = d_in · F = d_sae · nnz kept matches. Inputs are scaled, `centred = x − centre`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes
from saelab.training.gates.gate import Flow
from saelab.training.initial import Weights
from saelab.training.reconstruction import Reconstruction
from saelab.training.rows import MatchSums, RowGradient


@dataclass
class Gradients:
    """∂L of every trained tensor, in the tensor's own shape; those of the matrices row by row."""

    W_enc: RowGradient
    W_dec: RowGradient
    b_enc: Float[Tensor, "F"]
    b_dec: Float[Tensor, "d_out"]
    extra: dict[str, Tensor] = field(default_factory=dict)

    def vectors(self) -> dict[str, Tensor]:
        """Of everything but the matrices."""
        return {"b_enc": self.b_enc, "b_dec": self.b_dec, **self.extra}

    def named(self) -> dict[str, Tensor]:
        """Of everything, the matrices' whole."""
        return {"W_enc": self.W_enc.whole(), "W_dec": self.W_dec.whole(), **self.vectors()}


def step_gradients(
    weights: Weights,
    centred: Float[Tensor, "B d"],
    codes: SparseCodes,
    reconstruction: Reconstruction,
    flow: Flow,
    backend: Backend,
) -> Gradients:
    """Backward of `x_hat = W_decᵀ f + b_dec`, `z = W_enc (x − centre) + b_enc`, given what the gate carried back."""
    grad_z = backend.latent_sums(codes, flow.z)
    grad_b_dec = reconstruction.grad_x_hat.sum(0)
    if weights.is_tied_at_centre:
        grad_b_dec = grad_b_dec - grad_z @ weights.W_enc  # once in x_hat, once inside z
    return Gradients(
        W_enc=RowGradient(weights.W_enc, [MatchSums(codes, flow.z, centred, backend)]),
        W_dec=reconstruction.grad_rows,
        b_enc=grad_z if flow.bias is flow.z else backend.latent_sums(codes, flow.bias),
        b_dec=grad_b_dec,
        extra=flow.extra,
    )
