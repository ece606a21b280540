"""What a trainer is fed: activations of some tokens, and what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ActivationBatch:
    """Activations of B kept tokens, in the model's own units."""

    x: Float[Tensor, "B d_in"]
    """What a dictionary encodes."""
    target: Float[Tensor, "B d_out"]
    """What it reconstructs: the same tensor as `x` unless the source has another target site."""
    gradient: Float[Tensor, "B d_in"] | None
    """Gradient of the language model's summed loss with respect to `x`, where the source provides it."""
    tokens: Int[Tensor, "B"]
    """int64 running number of each token among the kept ones, in the corpus' order."""

    def __len__(self) -> int:
        return self.x.shape[0]

    def take(self, rows: Tensor | slice) -> ActivationBatch:
        """Some of the rows; with an index tensor they are copies."""
        x = self.x[rows]
        target = x if self.target is self.x else self.target[rows]
        gradient = None if self.gradient is None else self.gradient[rows]
        return ActivationBatch(x, target, gradient, self.tokens[rows])

    def to(self, device: torch.device | str) -> ActivationBatch:
        """In float32 on `device`."""
        x = self.x.to(device, torch.float32)
        target = x if self.target is self.x else self.target.to(device, torch.float32)
        gradient = None if self.gradient is None else self.gradient.to(device, torch.float32)
        return ActivationBatch(x, target, gradient, self.tokens.to(device))


def concatenate(parts: list[ActivationBatch]) -> ActivationBatch:
    """One batch of several, in order; all with the same target site and all with or all without gradients."""
    if len(parts) == 1:
        return parts[0]
    x = torch.cat([part.x for part in parts])
    target = x if parts[0].target is parts[0].x else torch.cat([part.target for part in parts])
    gradients = [part.gradient for part in parts if part.gradient is not None]
    gradient = torch.cat(gradients) if gradients else None
    return ActivationBatch(x, target, gradient, torch.cat([part.tokens for part in parts]))
