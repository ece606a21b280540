"""The backend for NVIDIA GPUs."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels import dense
from saelab.kernels.backend import AdamStep
from saelab.kernels.codes import SparseCodes
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.triton.adam import MOST_COLUMNS, adam
from saelab.kernels.triton.feature import select_feature
from saelab.kernels.triton.keys import SCORE_DTYPES
from saelab.kernels.triton.mutual import select_mutual
from saelab.kernels.triton.products import sampled_products
from saelab.kernels.triton.sums import weighted_sums
from saelab.kernels.triton.token import select_token

DENSE = 1 / 32  # share of kept pairs from which dense products should win, by the datasheet's rates of both
_ORACLE = ReferenceBackend()


class TritonBackend:
    """Kernels that read the scores once and touch kept matches only; all sums run in fp32, in one fixed order.

    Tensors are fp32, bf16 or fp16; float64 goes to the reference, since only tests use it. So do selections that no
    program can hold in registers (far beyond k = 512 or a batch of 16,384 tokens under feature choice). Dense products
    are torch's: cuBLAS is the floor that the rest is measured against.

    Nothing waits for the device but `select_feature` on budgets that lie there (the host must know their sum).

    Args:
        half: round the factors of the encoder product, and nothing else, to bf16. Its sums, the scores, and weights,
            thresholds and statistics stay fp32; fp32 products without tf32 are a twelfth as fast on an H100.
    """

    def __init__(self, half: bool = False) -> None:
        self.half = half
        self.name = "triton-bf16" if half else "triton"

    def pre_activations(
        self, centred: Float[Tensor, "B d"], W_enc: Float[Tensor, "F d"], b_enc: Float[Tensor, "F"], by_latent: bool
    ) -> Float[Tensor, "B F"]:
        if self.half and centred.dtype == torch.float32:
            factors = (
                (W_enc.bfloat16(), centred.bfloat16().T) if by_latent else (centred.bfloat16(), W_enc.bfloat16().T)
            )
            z = _wide_product(*factors).add_(b_enc[:, None] if by_latent else b_enc)
            return z.T if by_latent else z
        if by_latent:
            return torch.addmm(b_enc[:, None], W_enc, centred.T).T
        return torch.addmm(b_enc, centred, W_enc.T)

    def select_token(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        B, d_sae = scores.shape
        best = select_token(scores.contiguous(), k) if k < d_sae and scores.dtype in SCORE_DTYPES else None
        if best is None:
            return _ORACLE.select_token(scores, k)
        values, latents = best
        offsets = torch.arange(0, B * k + 1, k, device=scores.device) if k else latents.new_zeros(B + 1)
        return SparseCodes(values.flatten(), latents.flatten(), offsets, d_sae, (B,))

    def select_mutual(self, scores: Float[Tensor, "B F"], budget: int) -> SparseCodes:
        if budget >= scores.numel() or scores.dtype not in SCORE_DTYPES:
            return _ORACLE.select_mutual(scores, budget)
        return _codes(scores, *select_mutual(scores.contiguous(), budget))

    def select_feature(self, scores: Float[Tensor, "B F"], budgets: Int[Tensor, "F"]) -> SparseCodes:
        total = int(budgets.sum())
        budgets = budgets.to(scores.device, non_blocking=True)
        best = select_feature(scores, budgets, total) if scores.dtype in SCORE_DTYPES else None
        return _codes(scores, *best) if best is not None else _ORACLE.select_feature(scores, budgets)

    def select_firing(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        codes = self.select_token(scores, k)
        return codes.with_values(codes.values.relu())  # how many are above 0 the host would have to wait for

    def starved(self, deficit: Float[Tensor, "F"]) -> Int[Tensor, "n"] | None:
        return None

    def decode(self, codes: SparseCodes, W_dec: Float[Tensor, "F d"]) -> Float[Tensor, "B d"]:
        if _prefers_dense(codes, W_dec):
            return dense.decode(codes, W_dec)
        return weighted_sums(W_dec.contiguous(), codes.latents, codes.offsets, codes.values)

    def value_gradients(
        self, grad_x_hat: Float[Tensor, "B d"], codes: SparseCodes, W_dec: Float[Tensor, "F d"]
    ) -> Float[Tensor, "nnz"]:
        if _prefers_dense(codes, W_dec):
            return dense.value_gradients(grad_x_hat, codes, W_dec)
        return sampled_products(
            grad_x_hat.contiguous(), W_dec.contiguous(), codes.row_ids, codes.latents, codes.by_latent.order
        )

    def row_gradients(
        self,
        codes: SparseCodes,
        coefficients: Float[Tensor, "nnz"],
        rows: Float[Tensor, "B d"],
        latents: range | None = None,
    ) -> Float[Tensor, "n d"]:
        within = range(codes.d_sae) if latents is None else latents
        if _prefers_dense(codes, rows):
            return dense.row_gradients(codes, coefficients, rows)[within.start : within.stop]
        order, offsets = codes.by_latent
        offsets = offsets[within.start : within.stop + 1]
        return weighted_sums(rows.contiguous(), codes.row_ids[order], offsets, coefficients[order])

    def latent_sums(self, codes: SparseCodes, of_matches: Float[Tensor, "nnz"]) -> Float[Tensor, "F"]:
        order, offsets = codes.by_latent
        one, same_row = of_matches.new_ones(1, 1), torch.zeros_like(order)
        return weighted_sums(one, same_row, offsets, of_matches[order])[:, 0].to(of_matches.dtype)

    def passes(self, codes: SparseCodes) -> list[range]:
        """One: a kernel's launch costs more than what smaller passes would keep in the L2 cache."""
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
        if weight.dtype == torch.float64 or (unit_rows and weight.shape[1] > MOST_COLUMNS):
            _ORACLE.adam(weight, gradient, mean, square, step, unit_rows)
        else:
            adam(weight, gradient.contiguous(), mean, square, step, unit_rows)


def _wide_product(left: Float[Tensor, "m d"], right: Float[Tensor, "d n"]) -> Float[Tensor, "m n"]:
    """Product of bf16 matrices, summed and returned in fp32."""
    if left.device.type == "cuda":
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()  # the same numbers where torch has no such product


def _prefers_dense(codes: SparseCodes, table: Tensor) -> bool:
    return table.dtype == torch.float64 or codes.nnz > DENSE * codes.rows * codes.d_sae


def _codes(scores: Float[Tensor, "B F"], tokens: Int[Tensor, "nnz"], latents: Int[Tensor, "nnz"]) -> SparseCodes:
    """Codes of matches in the order of the batch; offsets by search, because counting would make the host wait."""
    B, d_sae = scores.shape
    offsets = torch.searchsorted(tokens, torch.arange(B + 1, device=scores.device))
    return SparseCodes(scores[tokens, latents], latents, offsets, d_sae, (B,))
