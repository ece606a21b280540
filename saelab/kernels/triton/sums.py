"""Weighted sums of table rows, bag by bag: decode (a bag is a token) and weight gradients (a bag is a latent).

No atomics: every sum is taken in one order, so that the same inputs give the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.triton.launch import launch, power_of_two, tiles

PIECE = 128  # matches one program sums; longer bags are cut, so that a latent of many tokens doesn't hold up the rest
BLOCK_D = 256  # most columns a program sums: of fp32, 64 threads fetch 16 bytes each
TOGETHER = 8  # matches whose rows are fetched at once: loads in flight to hide the latency of a gather


def weighted_sums(
    table: Float[Tensor, "rows d"],
    indices: Int[Tensor, "nnz"],
    offsets: Int[Tensor, "bags+1"],
    weights: Float[Tensor, "nnz"],
    piece: int = PIECE,
) -> Float[Tensor, "bags d"]:
    """`out[i] = Σ weights[j] · table[indices[j]]` over `offsets[i] ≤ j < offsets[i+1]`, summed and returned in fp32.

    Two stages. Every bag's first `piece` matches are summed straight into the output; the rest of long bags, cut in
    pieces too, into rows of their own, which a second kernel adds up in order. How many such rows there are depends on
    the data, but never more than nnz / piece: memory and grid take that bound, and the host need not wait to know.
    """
    bags, d = offsets.shape[0] - 1, table.shape[1]
    out = torch.empty(bags, d, dtype=torch.float32, device=table.device)
    most_rest = len(indices) // piece
    rest = torch.empty(most_rest, d, dtype=torch.float32, device=table.device)
    pieces = torch.div(offsets.diff() - 1, piece, rounding_mode="floor").clamp_(min=0)  # beyond the first
    ends = pieces.cumsum(0)
    owner = torch.searchsorted(ends, torch.arange(most_rest, device=table.device), right=True)
    block = min(BLOCK_D, max(16, power_of_two(d)))
    blocks = tiles(d, block)
    # Bags vary fastest: at any time the programs read one panel of BLOCK_D columns, which stays in L2 cache while all
    # matches pass over it (25 MB for 24,576 rows of fp32), instead of whole rows that push one another out.
    launch(
        _pieces_kernel, (bags + most_rest, blocks), table, indices, offsets, weights, ends, owner, out, rest, bags, d,
        PIECE=piece, BLOCK_D=block, TOGETHER=TOGETHER,
    )  # fmt: skip
    if most_rest:
        launch(_add_rest_kernel, (most_rest, blocks), ends, owner, out, rest, bags, d, BLOCK_D=block, warps=2)
    return out


@triton.jit
def _pieces_kernel(
    table, indices, offsets, weights, ends, owner, out, rest, bags, d,
    PIECE: tl.constexpr, BLOCK_D: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Programs 0 … bags−1 sum the first piece of their bag; the others a later piece of the bag that owns it."""
    program = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    if program < bags:
        bag = program.to(tl.int64)
        begin = tl.load(offsets + bag)
        target = out + bag * d
    else:
        number = (program - bags).to(tl.int64)
        bag = tl.load(owner + number)
        if bag >= bags:
            return  # fewer pieces than the bound
        nth = number - tl.load(ends + bag - 1, mask=bag > 0, other=0) + 1
        begin = tl.load(offsets + bag) + nth * PIECE
        target = rest + number * d
    end = tl.minimum(begin + PIECE, tl.load(offsets + bag + 1))
    total = tl.zeros((TOGETHER, BLOCK_D), tl.float32)  # summed over TOGETHER at the very end only
    for first in range(begin, end, TOGETHER):
        match = first + tl.arange(0, TOGETHER)
        row = tl.load(indices + match, mask=match < end, other=0).to(tl.int64)
        weight = tl.load(weights + match, mask=match < end, other=0.0).to(tl.float32)
        inside = (match < end)[:, None] & (column < d)[None, :]
        block = tl.load(table + row[:, None] * d + column[None, :], mask=inside, other=0.0)
        total += weight[:, None] * block.to(tl.float32)
    tl.store(target + column, tl.sum(total, axis=0), mask=column < d)


@triton.jit
def _add_rest_kernel(ends, owner, out, rest, bags, d, BLOCK_D: tl.constexpr):
    """The program of a bag's first later piece adds all of them to the output, in order; the others have no work."""
    number = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    bag = tl.load(owner + number)
    if bag >= bags:
        return
    first = tl.load(ends + bag - 1, mask=bag > 0, other=0)
    if number != first:
        return
    total = tl.load(out + bag * d + column, mask=column < d, other=0.0)
    for nth in range(first, tl.load(ends + bag)):
        total += tl.load(rest + nth * d + column, mask=column < d, other=0.0)
    tl.store(out + bag * d + column, total, mask=column < d)
