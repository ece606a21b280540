"""Where training starts: scale of the inputs, centre of the data, tied weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from saelab.errors import UserError


@dataclass
class Weights:
    """The four trained tensors; they change in place, step by step."""

    W_enc: Float[Tensor, "F d"]
    W_dec: Float[Tensor, "F d"]
    b_enc: Float[Tensor, "F"]
    b_dec: Float[Tensor, "d"]

    def named(self) -> dict[str, Tensor]:
        return {"W_enc": self.W_enc, "W_dec": self.W_dec, "b_enc": self.b_enc, "b_dec": self.b_dec}


def input_scale(sample: Float[Tensor, "n d"]) -> float:
    """The one number by which inputs are multiplied so that E|x|² = d (METHODS: Scaling).

    Raises:
        UserError: the sample is all zeros or not finite, so there is nothing to learn.
    """
    mean_square = float(sample.double().square().sum(1).mean())
    if not 0 < mean_square < float("inf"):
        raise UserError(f"the activations have mean squared norm {mean_square}; they must be finite and not all zero")
    return (sample.shape[1] / mean_square) ** 0.5


def initial_weights(sample: Float[Tensor, "n d"], d_sae: int, seed: int) -> Weights:
    """Unit-norm random decoder rows, `W_enc = W_dec` (tied at the start only), `b_dec` = geometric median.

    Source: arXiv 2406.04093, appendix A.

    Args:
        sample: scaled activations.
    """
    generator = torch.Generator().manual_seed(seed)
    W_dec = normalize(torch.randn(d_sae, sample.shape[1], generator=generator), dim=1).to(sample.device)
    return Weights(W_dec.clone(), W_dec, sample.new_zeros(d_sae), geometric_median(sample))


def geometric_median(points: Float[Tensor, "n d"], steps: int = 50, tolerance: float = 1e-5) -> Float[Tensor, "d"]:
    """The point with the least summed distance to `points`, by Weiszfeld's iteration.

    It stands where the mean would, but a few huge activations can't drag it away.
    """
    median = points.mean(0)
    for _ in range(steps):
        weights = 1 / (points - median).norm(dim=1).clamp(min=1e-6)
        moved = (weights[:, None] * points).sum(0) / weights.sum()
        if (moved - median).norm() <= tolerance * moved.norm():
            return moved
        median = moved
    return median
