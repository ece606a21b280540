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


class Ring(NamedTuple):
    """Consecutive latents that reconstruct together, and what their decoder rows learn from."""

    low: int
    high: int
    codes: SparseCodes
    """Their matches, numbered from `low` on."""
    grad_x_hat: Float[Tensor, "B d_out"]
    """∂loss/∂x_hat of all nested dictionaries that they are in."""


class Reconstruction(NamedTuple):
    """How well the target was met, and what the decoder learns from it."""

    error: Float[Tensor, "B d_out"]
    """`target − x_hat` of the whole dictionary."""
    grad_x_hat: Float[Tensor, "B d_out"]
    """∂loss/∂x_hat, of all nested dictionaries together: what `b_dec` sees."""
    grad_f: Float[Tensor, "nnz"]
    """∂loss/∂f of every kept match."""
    rings: list[Ring]
    """All latents; one ring for an ordinary dictionary."""


def reconstruct(
    codes: SparseCodes,
    weights: Weights,
    target: Float[Tensor, "B d_out"],
    ends: tuple[int, ...],
    numbers: int,
    backend: Backend,
) -> Reconstruction:
    """Decode and compare: the mean squared error, averaged over the nested dictionaries of the first `ends` latents.

    Args:
        ends: numbers of latents, rising to F; one entry is an ordinary dictionary. Source of nesting: arXiv 2503.17547.
            For a shard of the latents they say how many of its own each dictionary has.
        numbers: of the whole batch's target, of which `target` may be some rows.
    """
    if len(ends) == 1:
        x_hat = backend.decode(codes, weights.W_dec).add_(weights.b_dec)
        error = torch.sub(target, x_hat, out=x_hat)
        grad_x_hat = error * (-2 / numbers)
        grad_f = backend.value_gradients(grad_x_hat, codes, weights.W_dec)
        return Reconstruction(error, grad_x_hat, grad_f, [Ring(0, ends[0], codes, grad_x_hat)])
    return _reconstruct_nested(codes, weights, target, ends, numbers, backend)


def _reconstruct_nested(
    codes: SparseCodes,
    weights: Weights,
    target: Float[Tensor, "B d_out"],
    ends: tuple[int, ...],
    numbers: int,
    backend: Backend,
) -> Reconstruction:
    """Latents between two ends form a ring; each ring adds to what the smaller dictionaries reconstruct already."""
    cuts = [(low, high, *ring(codes, low, high)) for low, high in pairwise((0, *ends))]
    error = target - weights.b_dec
    gradients = []
    for low, high, inside, _ in cuts:
        error = error - backend.decode(inside, weights.W_dec[low:high])
        gradients.append(error * (-2 / (numbers * len(ends))))
    grad_x_hat = torch.zeros_like(error)
    grad_f, rings = torch.empty_like(codes.values), []
    for (low, high, inside, places), gradient in zip(reversed(cuts), reversed(gradients), strict=True):
        grad_x_hat = grad_x_hat + gradient  # a ring is part of its own dictionary and of all larger ones
        if low < high:  # some of it are this shard's
            grad_f[places] = backend.value_gradients(grad_x_hat, inside, weights.W_dec[low:high])
            rings.append(Ring(low, high, inside, grad_x_hat))
    return Reconstruction(error, grad_x_hat, grad_f, rings)


def own_ends(ends: tuple[int, ...], shard: range) -> tuple[int, ...]:
    """How many of a shard's latents are among the first `ends`."""
    return tuple(min(max(end - shard.start, 0), len(shard)) for end in ends)


def ring(codes: SparseCodes, low: int, high: int) -> tuple[SparseCodes, Tensor]:
    """The matches of latents `low … high − 1` as codes over these latents alone, and their places in `codes`."""
    places = ((codes.latents >= low) & (codes.latents < high)).nonzero()[:, 0]
    offsets = row_offsets(codes.row_ids[places], codes.rows)
    inside = replace(
        codes, values=codes.values[places], latents=codes.latents[places] - low, offsets=offsets, d_sae=high - low
    )
    return inside, places
