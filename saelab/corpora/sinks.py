"""Attention sinks: tokens on which a model parks attention, told by the length of their activations."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def are_sinks(
    x: Float[Tensor, "n context width"], real: Bool[Tensor, "n context"], times: float
) -> Bool[Tensor, "n context"]:
    """Positions whose |x| exceeds `times` the median |x| of the real positions of their row.

    Each row is judged by itself, so that batches, shards and processes agree; of an even number of norms the median is
    the lower one of the two in the middle. Computed in fp32.

    Args:
        real: False at padding, which has no part in the median and is never a sink.
    """
    norms = torch.linalg.vector_norm(x.float(), dim=-1)
    median = norms.masked_fill(~real, torch.nan).nanmedian(dim=-1, keepdim=True).values
    return (norms > times * median) & real
