"""Reconstruction loss and its gradient on the decoder's side, for one dictionary or nested ones (Matryoshka)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes, row_offsets
from saelab.training.initial import Weights
from saelab.training.rows import MatchSums, RowGradient


class Reconstruction(NamedTuple):
    """How well the target was met, and what the decoder learns from it."""

    error: Float[Tensor, "B d_out"]
    """`target − x_hat` of the whole dictionary."""
    grad_x_hat: Float[Tensor, "B d_out"]
    """∂loss/∂x_hat, of all nested dictionaries together: what `b_dec` sees."""
    grad_f: Float[Tensor, "nnz"]
    """∂loss/∂f of every kept match."""
    grad_rows: RowGradient
    """∂loss/∂W_dec."""


def reconstruct(
    codes: SparseCodes, weights: Weights, target: Float[Tensor, "B d_out"], ends: tuple[int, ...], backend: Backend
) -> Reconstruction:
    """Decode and compare: the mean squared error, averaged over the nested dictionaries of the first `ends` latents.

    Args:
        ends: numbers of latents, rising to F; one entry is an ordinary dictionary. Source of nesting: arXiv 2503.17547.
    """
    if len(ends) == 1:
        x_hat = backend.decode(codes, weights.W_dec).add_(weights.b_dec)
        error = torch.sub(target, x_hat, out=x_hat)
        grad_x_hat = error * (-2 / error.numel())
        return Reconstruction(
            error, grad_x_hat, backend.value_gradients(grad_x_hat, codes, weights.W_dec),
            RowGradient(weights.W_dec, [MatchSums(codes, codes.values, grad_x_hat, backend)]),
        )  # fmt: skip
    return _reconstruct_nested(codes, weights, target, ends, backend)


def _reconstruct_nested(
    codes: SparseCodes, weights: Weights, target: Float[Tensor, "B d_out"], ends: tuple[int, ...], backend: Backend
) -> Reconstruction:
    """Latents between two ends form a ring; each ring adds to what the smaller dictionaries reconstruct already."""
    rings = [(low, high, *ring(codes, low, high)) for low, high in pairwise((0, *ends))]
    error = target - weights.b_dec
    gradients = []
    for low, high, inside, _ in rings:
        error = error - backend.decode(inside, weights.W_dec[low:high])
        gradients.append(error * (-2 / (error.numel() * len(ends))))
    grad_x_hat = torch.zeros_like(error)
    grad_f, grad_rows = torch.empty_like(codes.values), RowGradient(weights.W_dec)
    for (low, high, inside, places), gradient in zip(reversed(rings), reversed(gradients), strict=True):
        grad_x_hat = grad_x_hat + gradient  # a ring is part of its own dictionary and of all larger ones
        grad_f[places] = backend.value_gradients(grad_x_hat, inside, weights.W_dec[low:high])
        grad_rows.parts.append(MatchSums(inside, inside.values, grad_x_hat, backend, first=low))
    return Reconstruction(error, grad_x_hat, grad_f, grad_rows)


def ring(codes: SparseCodes, low: int, high: int) -> tuple[SparseCodes, Tensor]:
    """The matches of latents `low … high − 1` as codes over these latents alone, and their places in `codes`."""
    places = ((codes.latents >= low) & (codes.latents < high)).nonzero()[:, 0]
    offsets = row_offsets(codes.row_ids[places], codes.rows)
    inside = replace(
        codes, values=codes.values[places], latents=codes.latents[places] - low, offsets=offsets, d_sae=high - low
    )
    return inside, places
