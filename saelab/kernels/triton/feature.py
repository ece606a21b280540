"""Feature choice: the best tokens of every latent, a budget of its own for each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.triton.keys import LOWEST, MOST_KEYS, among_largest, bits_of, sortable, warps_for
from saelab.kernels.triton.launch import launch, power_of_two


def select_feature(
    scores: Float[Tensor, "B F"], budgets: Int[Tensor, "F"], total: int
) -> tuple[Int[Tensor, "total"], Int[Tensor, "total"]] | None:
    """Tokens and latents of every latent's best scores, in the order of the batch; None when B is too large for it.

    Scores laid out by latent (`scores.T` contiguous, as the dense product can write them) are read once as they are;
    others are transposed first.

    Args:
        total: the sum of `budgets`, known to the host.
    """
    B, d_sae = scores.shape
    block = max(32, power_of_two(B))
    if block > MOST_KEYS:
        return None
    tokens = torch.empty(total, dtype=torch.int32, device=scores.device)
    starts = budgets.cumsum(0) - budgets
    launch(
        _best_tokens_kernel, (d_sae,), scores.T.contiguous(), budgets, starts, tokens, B,
        BITS=bits_of(scores.dtype), BLOCK=block, warps=warps_for(block),
    )  # fmt: skip
    latents = torch.repeat_interleave(torch.arange(d_sae, device=scores.device), budgets, output_size=total)
    # Latents ascend already: a stable sort by token keeps them so within each. torch's radix sort is the tool for it.
    tokens, order = torch.sort(tokens, stable=True)
    return tokens.long(), latents[order]


@triton.jit
def _best_tokens_kernel(columns, budgets, starts, tokens, B, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """A program holds all scores of one latent in registers: one contiguous stretch of memory, read once."""
    latent = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, BLOCK)
    x = tl.load(columns + latent * B + token, mask=token < B, other=0.0)
    keys = tl.where(token < B, sortable(x), LOWEST)
    kept = among_largest(keys, tl.load(budgets + latent).to(tl.int32), BITS) & (token < B)
    at = tl.load(starts + latent) + tl.cumsum(kept.to(tl.int32), axis=0) - 1
    tl.store(tokens + at, token, mask=kept)
