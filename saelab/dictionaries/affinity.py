"""Affinity: how much does token t want latent i?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.config import ActivationAffinity, GradientAffinity


def scores(
    affinity: ActivationAffinity | GradientAffinity,
    z: Float[Tensor, "B F"],
    gradient: Float[Tensor, "B d"] | None,
    W_dec: Float[Tensor, "F d"],
) -> Float[Tensor, "B F"]:
    """Affinity of every (token, latent) pair, ready for an allocation.

    Activation: `z` itself (no copy). Gradient: `z + β · z · |g|` with `g = W_dec ∇_x L`. No gradient flows through g.
    Source: arXiv 2411.10397, Figure 1; standardising |g| to mean 1 per batch is our reading.

    Args:
        z: pre-activations.
        gradient: ∇_x L of the summed next-token loss at the site; needed by the gradient affinity only.
    """
    if isinstance(affinity, ActivationAffinity) or affinity.beta == 0:
        return z
    if gradient is None:
        raise ValueError("the gradient affinity needs ∇_x L beside every activation")
    pull = (gradient @ W_dec.T).abs_()
    if affinity.normalise == "mean1":
        pull /= pull.mean().clamp(min=pull.new_tensor(1e-30))
    return z * pull.mul_(affinity.beta).add_(1.0)
