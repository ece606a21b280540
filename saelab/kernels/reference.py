"""The oracle: every operation written densely and plainly. Other backends are tested against this file."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.backend import AdamStep
from saelab.kernels.codes import SparseCodes


class ReferenceBackend:
    """Dense PyTorch; stable sorts make the tie rule of `Backend` literal."""

    name = "reference"

    def pre_activations(
        self, centred: Float[Tensor, "B d"], W_enc: Float[Tensor, "F d"], b_enc: Float[Tensor, "F"], by_latent: bool
    ) -> Float[Tensor, "B F"]:
        z = torch.nn.functional.linear(centred, W_enc, b_enc)
        return z.T.contiguous().T if by_latent else z

    def select_token(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        order = torch.sort(scores, dim=1, descending=True, stable=True).indices
        mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order[:, :k], True)
        return SparseCodes.from_mask(scores, mask)

    def select_mutual(self, scores: Float[Tensor, "B F"], budget: int) -> SparseCodes:
        order = torch.sort(scores.flatten(), descending=True, stable=True).indices
        mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
        mask[order[:budget]] = True
        return SparseCodes.from_mask(scores, mask.view_as(scores))

    def select_feature(self, scores: Float[Tensor, "B F"], budgets: Int[Tensor, "F"]) -> SparseCodes:
        order = torch.sort(scores, dim=0, descending=True, stable=True).indices
        within = torch.arange(scores.shape[0], device=scores.device)[:, None] < budgets.to(scores.device)
        return SparseCodes.from_mask(scores, torch.zeros_like(within).scatter_(0, order, within))

    def select_firing(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        return self.select_token(scores, k).positive()

    def starved(self, deficit: Float[Tensor, "F"]) -> Int[Tensor, "n"] | None:
        return deficit.nonzero()[:, 0]

    def decode(self, codes: SparseCodes, W_dec: Float[Tensor, "F d"]) -> Float[Tensor, "B d"]:
        return codes.to_dense().reshape(codes.rows, codes.d_sae) @ W_dec

    def value_gradients(
        self, grad_x_hat: Float[Tensor, "B d"], codes: SparseCodes, W_dec: Float[Tensor, "F d"]
    ) -> Float[Tensor, "nnz"]:
        return (grad_x_hat @ W_dec.T)[codes.row_ids, codes.latents]

    def row_gradients(
        self,
        codes: SparseCodes,
        coefficients: Float[Tensor, "nnz"],
        rows: Float[Tensor, "B d"],
        latents: range | None = None,
    ) -> Float[Tensor, "n d"]:
        dense = codes.with_values(coefficients).to_dense().reshape(codes.rows, codes.d_sae)
        within = range(codes.d_sae) if latents is None else latents
        return dense[:, within.start : within.stop].T @ rows

    def latent_sums(self, codes: SparseCodes, of_matches: Float[Tensor, "nnz"]) -> Float[Tensor, "F"]:
        return torch.bincount(codes.latents, weights=of_matches, minlength=codes.d_sae).to(of_matches.dtype)

    def passes(self, codes: SparseCodes) -> list[range]:
        return [range(codes.d_sae)]

    def adam(
        self,
        weight: Float[Tensor, "n *d"],
        gradient: Float[Tensor, "n *d"],
        mean: Float[Tensor, "n *d"],
        square: Float[Tensor, "n *d"],
        step: AdamStep,
        unit_rows: bool,
    ) -> None:
        if step.frozen is not None and bool(step.frozen):
            return
        if unit_rows:
            gradient = gradient - (gradient * weight).sum(1, keepdim=True) * weight
        mean.copy_(step.beta1 * mean + (1 - step.beta1) * gradient)
        square.copy_(step.beta2 * square + (1 - step.beta2) * gradient.square())
        corrected_mean = mean / (1 - step.beta1**step.number)
        corrected_square = square / (1 - step.beta2**step.number)
        weight -= step.lr * corrected_mean / (corrected_square.sqrt() + step.epsilon)
        if unit_rows:
            weight /= weight.norm(dim=1, keepdim=True)
