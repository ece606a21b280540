"""Scores as integers that sort the same way, and the search for the k largest of them, inside a Triton program."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SCORE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LOWEST = tl.constexpr(-(2**31))  # the key of places that hold no score

MOST_KEYS = 16384  # of one program: 32 registers a thread with 16 warps, which leaves room for the scans


def bits_of(dtype: torch.dtype) -> int:
    """How many bits of a key carry a score: 32 or 16. The search takes one step for each."""
    return torch.finfo(dtype).bits


def warps_for(keys: int) -> int:
    """16 keys a thread, but 16 warps at most: enough registers for several programs side by side."""
    return min(16, max(1, keys // 512))


@triton.jit
def sortable(x):
    """int32 keys in the order of x: sign and magnitude become two's complement.

    −0.0 is made 0.0 first, because the two are equal and equals are told apart by their place alone.
    """
    x = tl.where(x == 0, 0.0, x)
    if x.dtype.primitive_bitwidth == 32:
        bits = x.to(tl.int32, bitcast=True)
        return bits ^ ((bits >> 31) & 0x7FFFFFFF)
    else:  # noqa: RET505 - to Triton these are two programs, of which it compiles one
        bits = x.to(tl.int16, bitcast=True).to(tl.int32)
        return bits ^ ((bits >> 15) & 0x7FFF)


@triton.jit
def kth_largest(keys, k, BITS: tl.constexpr):
    """The k-th largest key along axis 0, found bit by bit from the sign down.

    A bit is set when at least k keys reach the number made with it. Every step is a comparison of keys that stay in
    registers and one sum over the block; unlike a sort, nothing moves between threads.
    """
    enough = tl.sum((keys >= 0).to(tl.int32), axis=0) >= k
    found = tl.where(enough, 0, -1) << (BITS - 1)
    for step in range(BITS - 1):
        raised = found | (1 << (BITS - 2 - step))
        enough = tl.sum((keys >= raised).to(tl.int32), axis=0) >= k
        found = tl.where(enough, raised, found)
    return found


@triton.jit
def among_largest(keys, k, BITS: tl.constexpr):
    """Mask of the k largest keys along axis 0; of equal keys the earlier places win."""
    last = kth_largest(keys, k, BITS)
    above = keys > last
    tied = keys == last
    spare = k - tl.sum(above.to(tl.int32), axis=0)
    return above | (tied & (tl.cumsum(tied.to(tl.int32), axis=0) <= spare))
