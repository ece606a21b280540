"""Random inputs that make a dictionary fire, and how far two dictionaries that should be one differ on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError

_DOUBLINGS = 24
_SEED = 0x5AE1AB  # not 0: weights that another tool drew with seed 0 must not meet themselves as inputs
_SAMPLE = 16  # rows on which a norm is tried
_MARGIN = 1e-5  # of a row's largest pre-activation: fp32 rounding of another order of sums stays below it
_TILE = 2**24  # pre-activations held at once


class Difference(NamedTuple):
    """How far two dictionaries are apart.

    Attributes:
        largest: over inputs, the largest `|x_hat_a − x_hat_b| / |x_hat_a|`.
        inputs: rows compared.
        undecided: rows left out, where another rounding could choose another latent.
    """

    largest: float
    inputs: int
    undecided: int


def probes(dictionary: Dictionary, rows: int, seed: int = 0) -> Float[Tensor, "rows d"]:
    """Gaussian inputs about the point that the encoder centres on, in model units; the same on every call.

    Their norm is √d in the dictionary's scale, doubled until k latents are active per input, or as many as will be.
    """
    generator = torch.Generator().manual_seed(_SEED + seed)
    plain = dictionary.to("cpu")
    centre = torch.zeros(dictionary.d_in) if dictionary.config.targets else plain.b_dec.float()
    noise = torch.randn(max(rows, _SAMPLE), dictionary.d_in, generator=generator)
    wanted = dictionary.config.k * _SAMPLE
    best, most = 1.0, -1
    for factor in (2.0**doubling for doubling in range(_DOUBLINGS)):
        active = plain.encode((centre + factor * noise[:_SAMPLE]) / plain.config.scale).nnz
        if active > most:
            best, most = factor, active
        if active >= wanted:
            break
    return (centre + best * noise[:rows]) / plain.config.scale


def difference(a: Dictionary, b: Dictionary, x: Float[Tensor, "n d"]) -> Difference:
    """Compare reconstructions on `x`, in fp32, input by input.

    Inputs are left out where a pre-activation of `a` is so close to the edge of being chosen that rounding decides.

    Raises:
        UserError: shapes differ, or no input is left.
    """
    if (a.d_in, a.d_out, a.d_sae) != (b.d_in, b.d_out, b.d_sae):
        raise UserError(f"{(a.d_in, a.d_sae, a.d_out)} → {(b.d_in, b.d_sae, b.d_out)}: shapes differ")
    largest, compared = 0.0, 0
    for tile in x.split(max(1, _TILE // a.d_sae)):
        kept = tile[decided(a, tile)]
        if not len(kept):
            continue
        x_hat = a(kept)
        apart = (b(kept) - x_hat).double().norm(dim=1) / x_hat.double().norm(dim=1).clamp(min=1e-30)
        largest, compared = max(largest, float(apart.nan_to_num(torch.inf).max())), compared + len(kept)
    if not compared:
        raise UserError("on every random input rounding alone decides which latents fire: nothing can be compared")
    return Difference(largest, compared, len(x) - compared)


def decided(dictionary: Dictionary, x: Float[Tensor, "n d"]) -> Bool[Tensor, "n"]:
    """Inputs whose choice of latents does not hang on rounding."""
    z, F = dictionary.pre_activations(x), dictionary.d_sae
    margin = _MARGIN * z.abs().amax(dim=1)
    if dictionary.config.rule == "group" or (dictionary.config.rule == "topk" and dictionary.config.k >= F):
        return torch.ones(len(z), dtype=torch.bool)
    if dictionary.config.rule == "topk":
        ranked = z.topk(dictionary.config.k + 1, dim=1).values
        return ranked[:, -2].clamp(min=0) - ranked[:, -1] > margin
    edge = dictionary.threshold.clamp(min=0)
    near = (z - edge).abs() <= margin[:, None]
    if not dictionary.gain.numel():
        near &= edge > 0  # a latent at the edge of firing at all adds nothing either way
    return ~near.any(dim=1)
