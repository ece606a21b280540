"""Two ways in which learnt dictionaries miss attributes: occlusion and over-splitting.

Source: arXiv 2405.08366 (METHODS §5). Occlusion: where IO's part of an activation is larger than S's, latents for S are
drowned. Over-splitting: an attribute of two values is made up of many latents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.evaluation.ioi.features import Features
from saelab.evaluation.ioi.properties import PropertyTable
from saelab.evaluation.ioi.supervised import Supervised, labels
from saelab.evaluation.ioi.task import ATTRIBUTES, Attribute, Prompts
from saelab.kernels.codes import SparseCodes

NAMED: Final = 0.5
ALPHAS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
MIN_GAIN: Final = 0.01


def named_share(table: PropertyTable, attribute: Attribute) -> float:
    """Share of the attribute's values that have a latent with F1 > 0.5, of those that occur.

    Says little about Pos: a latent that is always active has F1 2/3 with either of two equally frequent values.
    """
    present = table.present[attribute]
    return float((table.f1[attribute][present].amax(1) > NAMED).double().mean())


@dataclass(frozen=True)
class Occlusion:
    """Shares of values with a latent of their own, after a part of IO was taken out.

    Attributes:
        alpha: how much of u_IO was taken out; 0 is the activation as it is.
        named: `named_share` of every attribute.
    """

    alpha: float
    named: Mapping[Attribute, float]


def occlusion(
    x: Float[Tensor, "n d"],
    prompts: Prompts,
    supervised: Supervised,
    train: Callable[[Float[Tensor, "n d"]], Features],
    alphas: Sequence[float] = ALPHAS,
) -> tuple[Occlusion, ...]:
    """The causal test: dictionaries trained on `a − α·u_IO` find S as IO fades.

    Args:
        supervised: independent vectors of the same node, which say what u_IO is.
        train: makes the dictionary of some activations.
    """
    if supervised.parametrisation != "independent":
        raise ValueError("coupled vectors have no u_IO alone")
    u_io = supervised.vectors[labels(prompts, "independent")[:, ATTRIBUTES.index("IO")]]
    found = []
    for alpha in alphas:
        less = x - alpha * u_io
        table = PropertyTable.of(train(less).encode(less, prompts), prompts)
        found.append(Occlusion(alpha, {attribute: named_share(table, attribute) for attribute in ATTRIBUTES}))
    return tuple(found)


@dataclass(frozen=True)
class Splitting:
    """Latents that jointly make up one value.

    Attributes:
        latents: in the order in which they were taken.
        f1: of the union of the active sets of the first 1, 2, … of them.
    """

    latents: tuple[int, ...]
    f1: tuple[float, ...]


def splitting(codes: SparseCodes, value: Int[Tensor, "n"], of: int) -> Splitting:
    """How many latents make up one value of an attribute: their number is `len(found.latents)`.

    Our reading of "jointly": latents are taken greedily, each time the one that raises the F1 of the union of active
    sets most, until none raises it by 0.01.

    Args:
        value: the attribute's value in each prompt.
        of: the value in question.
    """
    left, is_value = codes.positive(), value == of
    latents, scores, covered = [], [0.0], torch.zeros(2, dtype=torch.float64)
    while True:
        inside = is_value[left.row_ids]
        hits, misses = (
            torch.bincount(left.latents[rows], minlength=codes.d_sae).double() for rows in (inside, ~inside)
        )
        f1 = 2 * (covered[1] + hits) / (covered.sum() + hits + misses + is_value.sum()).clamp(min=1)
        best = int(f1.argmax())
        if float(f1[best]) < scores[-1] + MIN_GAIN:
            return Splitting(tuple(latents), tuple(scores[1:]))
        latents.append(best)
        scores.append(float(f1[best]))
        covered = covered + torch.stack([misses[best], hits[best]])
        taken = torch.zeros(codes.rows, dtype=torch.bool)
        taken[left.row_ids[left.latents == best]] = True
        left = left.keep(~taken[left.row_ids])
