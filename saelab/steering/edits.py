"""Edits of codes, and what they add to an activation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.kernels.codes import SparseCodes
from saelab.steering.config import LatentEdit

Change = Callable[[Float[Tensor, "*batch d_in"]], Float[Tensor, "*batch d_in"]]


Edits = Sequence[LatentEdit] | Mapping[int, float]
"""Edits in full, or for short {latent: strength to add}."""


def as_edits(edits: Edits, d_sae: int) -> list[LatentEdit]:
    """Edits in full.

    Raises:
        UserError: a latent that the dictionary does not have, or one that is edited twice.
    """
    if isinstance(edits, Mapping):
        edits = [LatentEdit(latent=latent, strength=strength) for latent, strength in edits.items()]
    seen: set[int] = set()
    for edit in edits:
        if edit.latent >= d_sae:
            raise UserError(f"latent {edit.latent} does not exist; the dictionary has latents 0 to {d_sae - 1}")
        if edit.latent in seen:
            raise UserError(f"latent {edit.latent} is edited twice; give one edit for each latent")
        seen.add(edit.latent)
    return list(edits)


def difference(
    dictionary: Dictionary, edits: Edits, units: Float[Tensor, "d_sae"] | None = None
) -> Callable[[Float[Tensor, "*batch d_in"]], Float[Tensor, "*batch d_out"]]:
    """x → decode(edited codes) - decode(codes), in the units of where the dictionary writes. Source: METHODS §6.

    Decoding is linear, so the difference is a sum over the edited latents alone.

    Args:
        units: largest activation of each latent, in which add and clamp count; None: codes as they are.
    """
    change = differences(dictionary, [edits], units)
    return lambda x: change(x.reshape(1, -1, x.shape[-1])).reshape(*x.shape[:-1], dictionary.d_out)


def differences(
    dictionary: Dictionary, variants: Sequence[Edits], units: Float[Tensor, "d_sae"] | None = None
) -> Callable[[Float[Tensor, "variants tokens d_in"]], Float[Tensor, "variants tokens d_out"]]:
    """`difference` under several variants of the edits at once, of x that is the same for all of them: one encoding.

    Args:
        units: as in `difference`.
    """
    full = [as_edits(edits, dictionary.d_sae) for edits in variants]
    edited = sorted({edit.latent for edits in full for edit in edits})
    latents = torch.tensor(edited, dtype=torch.int64, device=dictionary.W_dec.device)
    directions = dictionary.decoder_directions(latents)
    scales = [_units(edits, units) for edits in full]

    def change(x: Float[Tensor, "variants tokens d_in"]) -> Float[Tensor, "variants tokens d_out"]:
        if not edited:
            return x.new_zeros(*x.shape[:-1], dictionary.d_out)
        before = columns(dictionary.encode(x[0]), latents)
        after = before.repeat(len(full), 1, 1)
        for codes, edits, worth in zip(after, full, scales, strict=True):
            for edit, unit in zip(edits, worth, strict=True):
                place = edited.index(edit.latent)
                codes[:, place] = edit.apply(before[:, place], unit)
        return ((after - before) @ directions).to(x.dtype)

    return change


def by_difference(dictionary: Dictionary, edits: Edits, units: Float[Tensor, "d_sae"] | None = None) -> Change:
    """x → x + decode(edited codes) - decode(codes): the reconstruction error stays, an edit without effect is a no-op.

    Args:
        units: largest activation of each latent, in which add and clamp count; None: codes as they are.

    Raises:
        UserError: a transcoder, which does not write where it reads; `interventions` does it at both sites.
    """
    if dictionary.config.targets:
        written = ", ".join(dictionary.config.target_sites)
        raise UserError(
            f"the dictionary reads {dictionary.site} and writes {written}: its edits are no function of one activation"
        )
    change = difference(dictionary, edits, units)
    return lambda x: x + change(x)


def direction(
    dictionary: Dictionary, edits: Edits, units: Float[Tensor, "d_sae"] | None = None
) -> Float[Tensor, "d_out"]:
    """Σ strength_i · unit_i · direction_i, in the units of where the dictionary writes.

    Args:
        edits: mode add only, since codes are not looked at; negative strengths push the other way.
        units: largest activation of each latent; None: strengths count codes as they are.

    Raises:
        UserError: an edit of another mode.
    """
    full = as_edits(edits, dictionary.d_sae)
    for edit in full:
        if edit.mode != "add":
            raise UserError(f"latent {edit.latent}: mode {edit.mode} edits codes; along a direction one can only add")
    strengths = [edit.strength or 0.0 for edit in full]
    amounts = torch.tensor([a * u for a, u in zip(strengths, _units(full, units), strict=True)])
    latents = torch.tensor([edit.latent for edit in full], dtype=torch.int64)
    directions = dictionary.decoder_directions(latents)
    return amounts.to(directions) @ directions


def by_direction(dictionary: Dictionary, edits: Edits, units: Float[Tensor, "d_sae"] | None = None) -> Change:
    """x → x + `direction`, whatever the codes are; args and errors as there."""
    return add_vector(direction(dictionary, edits, units))


def add_vector(vector: Float[Tensor, "width"]) -> Change:
    """x → x + vector, at every token: a direction from anywhere (a difference of means, a random one)."""
    return lambda x: x + vector.to(x)


def columns(codes: SparseCodes, latents: Tensor) -> Float[Tensor, "tokens some"]:
    """Dense codes of a few latents, 0 where they do not fire."""
    place = torch.full((codes.d_sae,), -1, dtype=torch.int64, device=latents.device)
    place[latents] = torch.arange(len(latents), device=latents.device)
    column = place[codes.latents]
    wanted = column >= 0
    dense = codes.values.new_zeros(codes.rows, len(latents))
    dense[codes.row_ids[wanted], column[wanted]] = codes.values[wanted]
    return dense


def _units(edits: Sequence[LatentEdit], units: Float[Tensor, "d_sae"] | None) -> list[float]:
    """What one unit of strength is worth for each edit."""
    return [1.0 if units is None else float(units[edit.latent]) for edit in edits]
