"""Scores in groups of neighbours: a maximum for each, so that selection reads all scores once and few of them again.

Let groups be runs of neighbouring latents of one token. The k best scores then lie within the k groups of largest
maximum, when ties go to the earlier group and the earlier score: a score outside them has k groups before it, each
with a maximum that is larger, or equal and at an earlier place. That is exact for any scores, and sizes are known
beforehand: k groups, k · width candidates. Nothing has to be counted on the device and reported to the host.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.triton.keys import LOWEST, sortable
from saelab.kernels.triton.launch import launch, power_of_two, tiles

TILE = 2048  # scores a program reads: 16 per thread, in four independent 16-byte loads (fp32)
NARROWEST = 4  # below it, maxima are as many as what they save


def group_width(d_sae: int, k: float) -> int:
    """Latents per group, a power of two: near √(F/k) there are as many maxima as candidates. 1: groups don't pay."""
    width = 2 ** round(math.log2(max(1.0, d_sae / max(k, 1))) / 2)
    return min(width, TILE) if width >= NARROWEST else 1


def group_maxima(scores: Float[Tensor, "B F"], width: int) -> Int[Tensor, "B groups"]:
    """Largest key of every `width` neighbouring latents (the last group of a token may be narrower)."""
    B, d_sae = scores.shape
    groups = tiles(d_sae, width)
    maxima = torch.empty(B, groups, dtype=torch.int32, device=scores.device)
    together = min(TILE // width, power_of_two(groups))
    grid = (B, tiles(groups, together))
    launch(_maxima_kernel, grid, scores, maxima, d_sae, groups, WIDTH=width, GROUPS=together)
    return maxima


@triton.jit
def _maxima_kernel(scores, maxima, d_sae, groups, WIDTH: tl.constexpr, GROUPS: tl.constexpr):
    """A program takes GROUPS neighbouring groups of one token: one contiguous stretch of memory, read once."""
    token = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    latent = group[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    x = tl.load(scores + token * d_sae + latent, mask=latent < d_sae, other=-float("inf"))
    tl.store(maxima + token * groups + group, tl.max(sortable(x), axis=1), mask=group < groups)


def candidate_keys(
    scores: Float[Tensor, "B F"], groups: Int[Tensor, "picked"], width: int
) -> Int[Tensor, "picked*width"]:
    """Keys of all scores in the groups picked, one group behind the other; groups are numbered through the batch."""
    d_sae = scores.shape[1]
    keys = torch.empty(len(groups) * width, dtype=torch.int32, device=scores.device)
    launch(
        _candidates_kernel, (tiles(len(keys), TILE),), scores, groups, keys, d_sae, tiles(d_sae, width), len(keys),
        WIDTH=width, BLOCK=TILE,
    )  # fmt: skip
    return keys


@triton.jit
def _candidates_kernel(scores, picked, keys, d_sae, groups, size, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """A program gathers BLOCK / WIDTH groups; the threads that share a group read neighbouring scores."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    group = tl.load(picked + place // WIDTH, mask=place < size, other=0)
    token, latent = group // groups, (group % groups) * WIDTH + place % WIDTH
    inside = (place < size) & (latent < d_sae)
    x = tl.load(scores + token.to(tl.int64) * d_sae + latent, mask=inside, other=0.0)
    tl.store(keys + place, tl.where(inside, sortable(x), LOWEST), mask=place < size)
