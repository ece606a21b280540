"""Principal components: what a dictionary has to beat. (The frozen random decoder is a training: `task_saes`.)"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.errors import UserError
from saelab.evaluation.ioi.features import Features
from saelab.kernels.codes import SparseCodes


def pca(x: Float[Tensor, "n d"], k: int) -> Features:
    """The mean and the k principal components of x; codes are coordinates, of either sign, every component has one.

    Raises:
        UserError: there are fewer than k components.
    """
    if k > min(x.shape):
        raise UserError(f"{len(x)} activations of width {x.shape[1]} have no {k} principal components; ask for fewer")
    mean = x.double().mean(0)
    centred = x.double() - mean
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1).T[:k].to(x)
    bias = mean.to(x)

    def encode(x: Float[Tensor, "n d"], prompts: object) -> SparseCodes:
        coordinates = (x - bias) @ vectors.T
        return SparseCodes.from_mask(coordinates, torch.ones_like(coordinates, dtype=torch.bool))

    return Features(f"PCA-{k}", vectors, bias, encode)
