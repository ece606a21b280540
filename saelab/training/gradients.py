"""Gradients of a dictionary's losses, written out: they exist only at kept matches, so no dense backward is needed.

Shape legend: B tokens · d = d_in · F = d_sae · nnz kept matches. Inputs are scaled, `centred = x − centre`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes
from saelab.training.gates.gate import Flow, GateInput
from saelab.training.initial import Weights
from saelab.training.reconstruction import Reconstruction
from saelab.training.rows import MatchSums, RowGradient, SomeRows


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


def auxiliary_gradients(
    given: GateInput,
    error: Float[Tensor, "B d_out"],
    deficit: Float[Tensor, "F"],
    k_aux: int,
    coefficient: float,
    gradients: Gradients,
) -> float:
    """Let starved latents reconstruct the error; adds its gradients to `gradients` and returns the loss.

    `e_hat = Σ δ_i f_i W_dec[i]` over the `k_aux` latents of largest `z_i δ_i` per token (relu, no bias);
    `L = |e − e_hat|² / |e − mean(e)|²` times `coefficient · min(Σδ / k_aux, 1)`; 0 where the denominator is.
    With δ = 1 for dead latents and 0 for all others this is aux_k. Source: arXiv 2406.04093, A.2; with δ in between
    it is aux_zipf, arXiv 2411.02124, whose formula is our reading.

    Only the rows with δ > 0 take part: a dictionary of their own, as sparse as theirs are.

    Args:
        error: `target − x_hat`, a constant here.
        deficit: δ, between 0 (thriving) and 1 (dead).
    """
    rows = deficit.nonzero()[:, 0]
    spread = (error - error.mean(0)).square().sum()
    if not len(rows) or spread == 0 or coefficient == 0:
        return 0.0
    weights, backend = given.weights, given.backend
    pull = deficit[rows].to(error.dtype)
    wanted = given.z_of(rows).mul_(pull)
    positive = wanted > 0
    if int(positive.sum(1).max()) <= k_aux:
        codes = SparseCodes.from_mask(wanted, positive)
    else:
        codes = backend.select_token(wanted, k_aux).positive()
    W_dec = weights.W_dec[rows]
    residual = backend.decode(codes, W_dec) - error
    factor = coefficient * min(float(pull.sum()) / k_aux, 1.0)
    grad_e_hat = residual * (2 * factor / spread)
    grad_z = backend.value_gradients(grad_e_hat, codes, W_dec) * pull.index_select(0, codes.latents)
    gradients.W_dec.parts.append(SomeRows(rows, backend.row_gradients(codes, codes.values, grad_e_hat)))
    gradients.W_enc.parts.append(SomeRows(rows, backend.row_gradients(codes, grad_z, given.centred)))
    grad_b = backend.latent_sums(codes, grad_z)
    gradients.b_enc.index_add_(0, rows, grad_b)
    if weights.is_tied_at_centre:
        gradients.b_dec -= grad_b @ weights.W_enc[rows]
    return float(factor * residual.square().sum() / spread)
