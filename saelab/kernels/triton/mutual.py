"""Mutual choice: the best scores of a whole batch, group maxima first, candidates second."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.triton.groups import candidate_keys, group_maxima, group_width
from saelab.kernels.triton.keys import LOWEST
from saelab.kernels.triton.launch import launch, tiles

TILE = 2048  # keys a program counts and writes


def select_mutual(scores: Float[Tensor, "B F"], budget: int) -> tuple[Int[Tensor, "budget"], Int[Tensor, "budget"]]:
    """Tokens and latents of the `budget` largest scores (at most B·F), in the order of the batch."""
    B, d_sae = scores.shape
    width = group_width(d_sae, budget / max(B, 1))
    groups = tiles(d_sae, width)
    maxima = group_maxima(scores, width).flatten()
    if width == 1:
        place = top_places(maxima, budget)
        return place // d_sae, place % d_sae
    best = top_places(maxima, min(budget, len(maxima)))
    place = top_places(candidate_keys(scores, best, width), budget)
    group = best[place // width]
    return group // groups, (group % groups) * width + place % width


def top_places(keys: Int[Tensor, "n"], budget: int) -> Int[Tensor, "budget"]:
    """Places of the `budget` largest keys, ascending; of equal keys the earlier ones.

    The last winner's key comes from `torch.topk`, which on a GPU is a radix selection over many blocks and leaves
    nothing to gain. Which of several equal keys it returns is chance, so its places are not used: counting and
    compacting again, tile by tile, follows the tie rule and gives the places in order, without a sort.
    """
    places = torch.empty(budget, dtype=torch.int64, device=keys.device)
    if budget == 0:
        return places
    last = torch.topk(keys, budget, sorted=False).values.amin()
    count = tiles(len(keys), TILE)
    counts = torch.empty(2, count, dtype=torch.int32, device=keys.device)
    launch(_count_kernel, (count,), keys, last, counts, len(keys), count, BLOCK=TILE)
    above, tied = counts.long()
    spare = budget - above.sum() - (tied.cumsum(0) - tied)  # what earlier tiles leave of the tied key's places
    taken = torch.minimum(spare.clamp(min=0), tied)
    kept = above + taken
    launch(_compact_kernel, (count,), keys, last, taken, kept.cumsum(0) - kept, places, len(keys), BLOCK=TILE)
    return places


@triton.jit
def _count_kernel(keys, last, counts, size, count, BLOCK: tl.constexpr):
    """How many keys of a tile are above the last winner's, and how many equal it."""
    tile = tl.program_id(0)
    place = tile * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + place, mask=place < size, other=LOWEST)
    limit = tl.load(last)
    tl.store(counts + tile, tl.sum((key > limit).to(tl.int32), axis=0))
    tl.store(counts + count + tile, tl.sum(((key == limit) & (place < size)).to(tl.int32), axis=0))


@triton.jit
def _compact_kernel(keys, last, taken, starts, places, size, BLOCK: tl.constexpr):
    """Write a tile's winners from its own start on: all above the limit, and the first `taken` that equal it."""
    tile = tl.program_id(0)
    place = tile * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + place, mask=place < size, other=LOWEST)
    limit = tl.load(last)
    tied = (key == limit) & (place < size)
    kept = (key > limit) | (tied & (tl.cumsum(tied.to(tl.int32), axis=0) <= tl.load(taken + tile)))
    at = tl.load(starts + tile) + tl.cumsum(kept.to(tl.int32), axis=0) - 1
    tl.store(places + at, place.to(tl.int64), mask=kept)
