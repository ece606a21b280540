"""Products of matrices rounded to bf16 or int8, and how far they can be from the exact ones."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.product import Buffer
from saelab.kernels.selection import group_size

Precision = Literal["bf16", "int8"]

BF16_ROUNDING, FP32_ROUNDING = 2.0**-8, 2.0**-24  # of one number, relative
LARGEST_INT8 = 127
ROWS_AT_ONCE, TILE_ELEMENTS = 256, 2**19  # of a matrix, of scores: what is made of a slice stays in cache
NORM_SLACK = 1 + 1e-4  # norms are rounded sums themselves


class Rounded(NamedTuple):
    """`rows ≈ scale · numbers`, row by row."""

    numbers: Tensor
    """`[n, d]`, bf16 or int8."""
    scale: Float[Tensor, "n"]
    """1 for bf16."""
    norm: Float[Tensor, "n"]
    """Upper bound of a rounded row's norm."""
    miss: Float[Tensor, "n"]
    """Upper bound of the norm of what rounding took from a row."""

    @classmethod
    def of(cls, rows: Float[Tensor, "n d"], precision: Precision) -> Rounded:
        """Round to nearest; int8 with the largest number of a row at ±127."""
        is_int8 = precision == "int8"
        numbers = torch.empty(rows.shape, dtype=torch.int8 if is_int8 else torch.bfloat16)
        scale, norm, miss = (rows.new_ones(len(rows)) for _ in range(3))
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            exact = rows[part]
            if is_int8:
                scale[part] = exact.abs().amax(1).clamp(min=1e-30) / LARGEST_INT8
                exact = exact / scale[part, None]
            numbers[part] = exact.round() if is_int8 else exact
            back = numbers[part].float()
            norm[part] = back.norm(dim=1) * scale[part] * NORM_SLACK
            miss[part] = (exact - back).norm(dim=1) * scale[part] * NORM_SLACK
        return cls(numbers, scale, norm, miss)


class RoundedProduct:
    """`x @ Wᵀ + b` from rounded x and W, in groups of neighbouring latents.

    Attributes:
        maxima: `[B, n]` the largest score of every group.
        error: `[B]` how far a token's products can be from the exact ones before they are stored.
    """

    def __init__(
        self,
        x: Float[Tensor, "B d"],
        W: Float[Tensor, "F d"],
        b: Float[Tensor, "F"],
        precision: Precision,
        buffer: Buffer,
    ) -> None:
        self.x, self.W, self.b = Rounded.of(x, precision), Rounded.of(W, precision), b
        is_int8 = precision == "int8"
        self.raw = buffer.take(len(x), len(W), torch.empty(0, dtype=torch.int32 if is_int8 else torch.bfloat16))
        if is_int8:
            torch.ops.aten._int_mm.out(self.x.numbers, self.W.numbers.T, out=self.raw)
        else:
            torch.mm(self.x.numbers, self.W.numbers.T, out=self.raw)
        self.longest_W = float((self.W.norm + self.W.miss).max())
        self.error = self._error()
        self.storing = FP32_ROUNDING if is_int8 else BF16_ROUNDING
        self.size = group_size(len(W))
        self.maxima = self._maxima()

    def members(self, groups: Int[Tensor, "m"]) -> Float[Tensor, "m size"]:
        """All scores of some groups, numbered token by token."""
        count = self.raw.shape[1] // self.size
        rows = torch.div(groups, count, rounding_mode="floor")
        columns = groups - rows * count
        raw = self.raw.view(-1, self.size).index_select(0, groups)
        scale = self.W.scale.view(-1, self.size).index_select(0, columns)
        b = self.b.view(-1, self.size).index_select(0, columns)
        return self._scores(raw, self.x.scale.index_select(0, rows), scale, b)

    def lowest(self, exact: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """What a latent of a token that has this exact score or more scores at least.

        Storing a product p costs `storing · |p|`; of scores s ≥ `exact` the least, less all errors, is `exact` itself.
        """
        size = exact.abs() + float(self.b.abs().max()) + self.error
        return exact - self.error - (self.storing + 16 * FP32_ROUNDING) * size

    def _error(self) -> Float[Tensor, "B"]:
        """`x·w − x̃·w̃ = (x − x̃)·w + x̃·(w − w̃)`, each at most the product of norms (Cauchy–Schwarz).

        Products of two bf16 numbers are exact in fp32, sums of d of them lose at most d roundings each way; whole
        numbers lose nothing.
        """
        is_int8 = self.raw.dtype == torch.int32
        summing = 0.0 if is_int8 else 2 * self.W.numbers.shape[1] * FP32_ROUNDING * float(self.W.norm.max())
        return self.x.miss * self.longest_W + self.x.norm * (float(self.W.miss.max()) + summing)

    def _maxima(self) -> Float[Tensor, "B n"]:
        rows = max(1, TILE_ELEMENTS // len(self.b))
        parts = [
            self._scores(raw, scale, self.W.scale, self.b).view(len(raw), -1, self.size).amax(2)
            for raw, scale in zip(self.raw.split(rows), self.x.scale.split(rows), strict=True)
        ]
        return torch.cat(parts)

    def _scores(self, raw: Tensor, x_scale: Tensor, W_scale: Tensor, b: Tensor) -> Float[Tensor, "n m"]:
        scores = raw.float()
        if raw.dtype == torch.int32:
            scores.mul_(W_scale).mul_(x_scale[:, None])
        return scores.add_(b)
