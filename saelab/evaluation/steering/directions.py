"""What is added to the activations: latents and baselines, at matched strength and at equal length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.steering.report import Directions, Matched
from saelab.steering.effect import equal_strength, own_strength


class Arm(NamedTuple):
    """Directions of one kind at one strength."""

    directions: Directions
    matched: Matched
    strength: float
    vectors: Float[Tensor, "n width"]


def of_latents(
    dictionary: Dictionary,
    latents: Int[Tensor, "n"],
    units: Float[Tensor, "d_sae"],
    random: Float[Tensor, "some width"],
    strengths: list[float],
    lengths: Mapping[float, float],
) -> list[Arm]:
    """Arms that differ from dictionary to dictionary: its latents, and random directions with lengths like these.

    Args:
        units: largest activation of each latent.
        random: unit vectors.
        lengths: equal ones, as multiples of the typical distance and in model units.
    """
    arms: list[Arm] = []
    for strength in strengths:
        own = own_strength(dictionary, latents, units, strength).cpu()
        arms.append(Arm("latents", "own", strength, own))
        norms = own.norm(dim=1).quantile(torch.linspace(0, 1, len(random)))
        arms.append(Arm("random", "own", strength, norms[:, None] * random))
    for multiple, length in lengths.items():
        arms.append(Arm("latents", "equal", multiple, equal_strength(dictionary, latents, length).cpu()))
    return arms


def of_site(
    random: Float[Tensor, "n width"],
    differences: Float[Tensor, "labels width"],
    strengths: list[float],
    lengths: Mapping[float, float],
) -> list[Arm]:
    """Arms that all dictionaries of a site share: random directions, and differences of means where there are any.

    The unit of a difference of means is its own length.

    Args:
        random: unit vectors.
        lengths: as in `of_latents`.
    """
    arms = [Arm("random", "equal", multiple, length * random) for multiple, length in lengths.items()]
    if len(differences):
        unit = torch.nn.functional.normalize(differences, dim=1)
        arms += [Arm("mean difference", "own", strength, strength * differences) for strength in strengths]
        arms += [Arm("mean difference", "equal", multiple, length * unit) for multiple, length in lengths.items()]
    return arms


def random_directions(n: int, width: int, seed: int) -> Float[Tensor, "n width"]:
    """Unit vectors, uniform on the sphere."""
    drawn = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)
