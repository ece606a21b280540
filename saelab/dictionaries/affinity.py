"""Affinity: how much does token t want latent i?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.config import ActivationAffinity, GradientAffinity
from saelab.kernels.product import Buffer, product

if TYPE_CHECKING:
    from saelab.ranks.mesh import Mesh


def scores(
    affinity: ActivationAffinity | GradientAffinity,
    z: Float[Tensor, "B F"],
    gradient: Float[Tensor, "B d"] | None,
    W_dec: Float[Tensor, "F d"],
    buffer: Buffer | None = None,
    mesh: Mesh | None = None,
) -> Float[Tensor, "B F"]:
    """Affinity of every (token, latent) pair, ready for an allocation.

    Activation: `z` itself (no copy). Gradient: `z + β · z · |g|` with `g = W_dec ∇_x L`. No gradient flows through g.
    Source: arXiv 2411.10397, Figure 1; standardising |g| to mean 1 per batch is our reading.

    Args:
        z: pre-activations.
        gradient: ∇_x L of the summed next-token loss at the site; needed by the gradient affinity only.
        buffer: where affinities other than z are written; who asks again and again keeps one.
        mesh: ranks that hold the batch and the dictionary together, where `z` is but this rank's part of the scores.
    """
    if isinstance(affinity, ActivationAffinity) or affinity.beta == 0:
        return z
    if gradient is None:
        raise ValueError("the gradient affinity needs ∇_x L beside every activation")
    pull = product(gradient, W_dec, buffer or Buffer()).abs_()
    weight = pull.new_full((), affinity.beta)  # filled in there: a number that is sent makes the host wait
    if affinity.normalise == "mean1":
        weight /= _mean(pull, mesh).clamp(min=1e-30)
    return torch.addcmul(z, z, pull.mul_(weight), out=pull)


def _mean(pull: Float[Tensor, "B F"], mesh: Mesh | None) -> Float[Tensor, ""]:
    """Mean over the whole batch and dictionary; over several ranks 16 bytes travel, and all get the same bits."""
    if mesh is None or mesh.world.size == 1:
        return pull.mean()
    total = pull.sum(dtype=torch.float64)
    sums = mesh.world.sum(torch.stack([total, torch.full_like(total, pull.numel())]), "gradient affinity")
    return (sums[0] / sums[1]).to(pull.dtype)
