"""What a trainer is fed: activations of some tokens, and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ActivationBatch:
    """Activations of B kept tokens, in the model's own units, float32. Others may hold the same tensors: read only."""

    x: Float[Tensor, "B d_in"]
    """What a dictionary encodes."""
    target: Float[Tensor, "B d_out"]
    """What it reconstructs: `x` itself (the same tensor), or the target sites side by side."""
    gradient: Float[Tensor, "B d_in"] | None
    """Gradient of the language model's summed loss with respect to `x`, where it was asked for."""
    tokens: Int[Tensor, "B"]
    """int64 running number of each token among the kept ones, in the corpus' order."""

    def __len__(self) -> int:
        return self.x.shape[0]
