"""Scores as whole numbers in the same order: they compare, sort and travel exactly.

The bits of a positive float read as a whole number keep its order; those of a negative one reverse it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def ordered(scores: Float[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """int32 in the order of fp32 and narrower scores, int64 in that of float64; 0 and −0 are equal, NaN is largest."""
    scores = scores if scores.dtype == torch.float64 else scores.float()
    bits = (scores + 0.0).view(torch.int64 if scores.dtype == torch.float64 else torch.int32)  # −0 + 0 is 0
    limits = torch.iinfo(bits.dtype)
    return (bits ^ ((bits >> (limits.bits - 1)) & limits.max)).masked_fill_(scores.isnan(), limits.max)


def lowest(keys: Int[Tensor, "*n"]) -> int:
    """What is below the key of every score, −inf included: it stands where there is none."""
    return torch.iinfo(keys.dtype).min


def best_first(keys: Int[Tensor, "n"], rows: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """The order that puts rows behind one another and the largest key of each first; among equals the earlier."""
    if keys.dtype == torch.int32:  # then both fit into one number; whole numbers sort several times faster than floats
        return torch.sort((torch.iinfo(torch.int32).max - keys.long()) + (rows << 32), stable=True).indices
    order = torch.sort(keys, descending=True, stable=True).indices
    return order.index_select(0, torch.sort(rows.index_select(0, order), stable=True).indices)
