"""Gradients of a dictionary's losses, written out: they exist only at kept matches, so no dense backward is needed.

Shape legend: B tokens · d = d_in · F = d_sae · nnz kept matches. `x` is scaled, `centred = x − b_dec`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes
from saelab.training.initial import Weights


class Gradients(Weights):
    """∂L of every trained tensor, in the tensor's own shape."""


def reconstruction_gradients(
    weights: Weights,
    centred: Float[Tensor, "B d"],
    codes: SparseCodes,
    slope: Float[Tensor, "nnz"],
    grad_x_hat: Float[Tensor, "B d"],
    backend: Backend,
) -> Gradients:
    """Backward of `x_hat = W_decᵀ f + b_dec`, `z = W_enc (x − b_dec) + b_enc`, `df = slope · dz` at kept matches.

    Args:
        codes: kept activations f.
        slope: df/dz of every match: 1 where it fires, 0 where relu closes it (1 there too if straight-through).
    """
    grad_z = backend.value_gradients(grad_x_hat, codes, weights.W_dec) * slope
    grad_b_enc = torch.bincount(codes.latents, weights=grad_z, minlength=codes.d_sae).to(grad_z.dtype)
    return Gradients(
        W_enc=backend.row_gradients(codes, grad_z, centred),
        W_dec=backend.row_gradients(codes, codes.values, grad_x_hat),
        b_enc=grad_b_enc,
        b_dec=grad_x_hat.sum(0) - grad_b_enc @ weights.W_enc,  # once in x_hat, once inside z
    )


def auxiliary_gradients(
    weights: Weights,
    centred: Float[Tensor, "B d"],
    z: Float[Tensor, "B F"],
    error: Float[Tensor, "B d"],
    deficit: Float[Tensor, "F"],
    k_aux: int,
    coefficient: float,
    gradients: Gradients,
    backend: Backend,
) -> float:
    """Let starved latents reconstruct the error; adds its gradients to `gradients` and returns the loss.

    `e_hat = Σ δ_i f_i W_dec[i]` over the `k_aux` latents of largest `z_i δ_i` per token (relu, no bias);
    `L = |e − e_hat|² / |e − mean(e)|²` times `coefficient · min(Σδ / k_aux, 1)`; 0 where the denominator is.
    With δ = 1 for dead latents and 0 for all others this is aux_k. Source: arXiv 2406.04093, A.2; with δ in between
    it is aux_zipf, arXiv 2411.02124, whose formula is our reading.

    Only the rows with δ > 0 take part, densely: they are few, and almost all of them are kept.

    Args:
        error: `x − x_hat`, a constant here.
        deficit: δ, between 0 (thriving) and 1 (dead).
    """
    rows = deficit.nonzero()[:, 0]
    spread = (error - error.mean(0)).square().sum()
    if not len(rows) or spread == 0:
        return 0.0
    pull = deficit[rows].to(z.dtype)
    kept = z[:, rows].relu_().mul_(pull)
    if len(rows) > k_aux:
        kept = backend.select_token(kept, k_aux).to_dense()
    W_dec = weights.W_dec[rows]
    residual = kept @ W_dec - error
    factor = coefficient * min(float(pull.sum()) / k_aux, 1.0)
    grad_e_hat = residual * (2 * factor / spread)
    grad_z = (grad_e_hat @ W_dec.T).mul_(kept > 0).mul_(pull)
    gradients.W_dec[rows] += kept.T @ grad_e_hat
    gradients.W_enc[rows] += grad_z.T @ centred
    gradients.b_enc[rows] += grad_z.sum(0)
    gradients.b_dec -= grad_z.sum(0) @ weights.W_enc[rows]
    return float(factor * residual.square().sum() / spread)
