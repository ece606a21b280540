"""The oracle: every operation written densely and plainly. Other backends are tested against this file."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.codes import SparseCodes


class ReferenceBackend:
    """Dense PyTorch; stable sorts make the tie rule of `Backend` literal."""

    name = "reference"

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
        within = torch.arange(scores.shape[0], device=scores.device)[:, None] < budgets
        return SparseCodes.from_mask(scores, torch.zeros_like(within).scatter_(0, order, within))

    def decode(self, codes: SparseCodes, W_dec: Float[Tensor, "F d"]) -> Float[Tensor, "B d"]:
        return codes.to_dense().reshape(codes.rows, codes.d_sae) @ W_dec

    def value_gradients(
        self, grad_x_hat: Float[Tensor, "B d"], codes: SparseCodes, W_dec: Float[Tensor, "F d"]
    ) -> Float[Tensor, "nnz"]:
        return (grad_x_hat @ W_dec.T)[codes.row_ids, codes.latents]

    def row_gradients(
        self, codes: SparseCodes, coefficients: Float[Tensor, "nnz"], rows: Float[Tensor, "B d"]
    ) -> Float[Tensor, "F d"]:
        return codes.with_values(coefficients).to_dense().reshape(codes.rows, codes.d_sae).T @ rows
