"""Token choice: the k best latents of every token, in two small steps after one reading of the scores."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.triton.groups import group_maxima, group_width
from saelab.kernels.triton.keys import LOWEST, MOST_KEYS, among_largest, bits_of, sortable, warps_for
from saelab.kernels.triton.launch import launch, power_of_two, tiles

DIRECT = 2048  # latents up to which one program takes a token whole


def select_token(scores: Float[Tensor, "B F"], k: int) -> tuple[Float[Tensor, "B k"], Int[Tensor, "B k"]] | None:
    """Values and latents (ascending) of every token's k largest scores; None when k and F are too large for it."""
    B, d_sae = scores.shape
    whole = d_sae <= DIRECT
    width = power_of_two(d_sae) if whole else group_width(d_sae, k)
    groups, picked = tiles(d_sae, width), 1 if whole else k
    if max(power_of_two(groups), power_of_two(picked) * width) > MOST_KEYS:
        return None
    if whole:
        best = torch.zeros(B, 1, dtype=torch.int32, device=scores.device)
    else:
        best = _best_groups(group_maxima(scores, width), k, bits_of(scores.dtype))
    values = torch.empty(B, k, dtype=scores.dtype, device=scores.device)
    latents = torch.empty(B, k, dtype=torch.int64, device=scores.device)
    block = power_of_two(picked) * width
    launch(
        _best_scores_kernel, (B,), scores, best, values, latents, d_sae, picked, k,
        WIDTH=width, BITS=bits_of(scores.dtype), BLOCK=block, warps=warps_for(block),
    )  # fmt: skip
    return values, latents


def _best_groups(maxima: Int[Tensor, "B groups"], k: int, bits: int) -> Int[Tensor, "B k"]:
    B, groups = maxima.shape
    best = torch.empty(B, k, dtype=torch.int32, device=maxima.device)
    block = power_of_two(groups)
    launch(_best_groups_kernel, (B,), maxima, best, groups, k, BITS=bits, BLOCK=block, warps=warps_for(block))
    return best


@triton.jit
def _best_groups_kernel(maxima, best, groups, k, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """A program holds all maxima of one token in registers; winners leave in ascending order of their group."""
    token = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, BLOCK)
    keys = tl.load(maxima + token * groups + group, mask=group < groups, other=LOWEST)
    kept = among_largest(keys, k, BITS)
    tl.store(best + token * k + tl.cumsum(kept.to(tl.int32), axis=0) - 1, group, mask=kept)


@triton.jit
def _best_scores_kernel(
    scores, best, values, latents, d_sae, picked, k, WIDTH: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr
):
    """A program holds the candidates of one token: `picked` groups of WIDTH, ascending, so latents come out sorted."""
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    group = tl.load(best + token * picked + place // WIDTH, mask=place // WIDTH < picked, other=0)
    latent = group * WIDTH + place % WIDTH
    inside = (place // WIDTH < picked) & (latent < d_sae)
    x = tl.load(scores + token * d_sae + latent, mask=inside, other=0.0)
    kept = among_largest(tl.where(inside, sortable(x), LOWEST), k, BITS)
    at = token * k + tl.cumsum(kept.to(tl.int32), axis=0) - 1
    tl.store(values + at, x, mask=kept)
    tl.store(latents + at, latent.to(tl.int64), mask=kept)
