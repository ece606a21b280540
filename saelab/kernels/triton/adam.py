"""Adam, with gradient projection and unit-norm rows where wanted, in one pass over weights and moments."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from saelab.kernels.backend import AdamStep
from saelab.kernels.triton.launch import launch, power_of_two, tiles

MOST_COLUMNS = 8192  # a row, its gradient and its moments: 64 registers of 512 threads
FLAT = 1024  # numbers a program moves where rows don't matter


def adam(
    weight: Float[Tensor, "n d"],
    gradient: Float[Tensor, "n d"],
    mean: Float[Tensor, "n d"],
    square: Float[Tensor, "n d"],
    step: AdamStep,
    unit_rows: bool,
) -> None:
    """One step in place, as `Backend.adam` says; weights and moments are fp32, the gradient may be bf16.

    Bytes: four reads and three writes of n·d numbers and nothing else, because a row stays in registers between its
    projection, its step and its renormalisation; as separate operations these take twice that.
    """
    size = weight.numel()
    d = weight.shape[-1] if unit_rows else FLAT
    block = power_of_two(d)
    frozen = weight if step.frozen is None else step.frozen.view(torch.uint8)
    launch(
        _adam_kernel, (tiles(size, d),), weight, gradient, mean, square, frozen, size, d,
        step.lr / (1 - step.beta1**step.number), (1 - step.beta2**step.number) ** 0.5,
        1 - step.beta1, 1 - step.beta2, step.epsilon,
        UNIT=unit_rows, STOPS=step.frozen is not None, BLOCK=block, warps=min(16, max(1, block // 256)),
    )  # fmt: skip


@triton.jit
def _adam_kernel(
    weight, gradient, mean, square, frozen, size, d, rate, root_correction, new_mean, new_square, epsilon,
    UNIT: tl.constexpr, STOPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program moves d neighbouring numbers: a row when it is to keep its norm, else a stretch of any rows.

    `rate` is lr / (1 − β₁ᵗ), `root_correction` √(1 − β₂ᵗ), `new_mean` 1 − β₁, `new_square` 1 − β₂: the host takes the
    differences in float64, where 1 − 0.999 keeps its digits. STOPS: `frozen` is a byte; where it is not 0
    nothing is read or written.
    """
    column = tl.arange(0, BLOCK)
    at = tl.program_id(0).to(tl.int64) * d + column
    inside = (column < d) & (at < size)
    if STOPS:
        inside = inside & (tl.load(frozen) == 0)
    w = tl.load(weight + at, mask=inside, other=0.0)
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    if UNIT:
        g -= tl.sum(g * w, axis=0) * w
    m = tl.load(mean + at, mask=inside, other=0.0)
    v = tl.load(square + at, mask=inside, other=0.0)
    m += new_mean * (g - m)
    v += new_square * (g * g - v)
    w -= rate * m / (tl.sqrt(v) / root_correction + epsilon)
    if UNIT:
        w /= tl.maximum(tl.sqrt(tl.sum(w * w, axis=0)), 1e-12)
    tl.store(mean + at, m, mask=inside)
    tl.store(square + at, v, mask=inside)
    tl.store(weight + at, w, mask=inside)
