"""Test 3, interpretability: F1 between the active set of every latent and every property of the prompts.

Source: arXiv 2405.08366 (METHODS §5). Properties come in families: the values of IO, of S and of Pos, the name in the
first, in the second or in any place of the first clause, the gender of S; and, for names, unions of up to ten of them.
Everything follows from counts of (value, latent) pairs, so one pass over the codes is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.evaluation.ioi.supervised import POSITIONS
from saelab.evaluation.ioi.task import Prompts
from saelab.kernels.codes import SparseCodes

MOST_NAMES: Final = 10
GENDERS: Final = ("female", "male")


@dataclass(frozen=True, eq=False)
class Family:
    """Properties of one kind.

    Attributes:
        values: what the properties are called.
        labels: index of the property that a prompt has; several different ones where it has several.
        unions: whether unions of these properties are properties too.
    """

    name: str
    values: tuple[str, ...]
    labels: Int[Tensor, "n several"]
    unions: bool = False

    @property
    def size(self) -> Float[Tensor, "values"]:
        """Prompts with each property."""
        return torch.bincount(self.labels.reshape(-1), minlength=len(self.values)).double()


def families(prompts: Prompts) -> tuple[Family, ...]:
    """All properties of the test."""
    io_first = prompts.pos == 0
    first = torch.where(io_first, prompts.io, prompts.s)
    second = torch.where(io_first, prompts.s, prompts.io)
    both = torch.stack([prompts.io, prompts.s], dim=1)
    names = prompts.names
    return (
        Family("IO", names, prompts.io[:, None], unions=True),
        Family("S", names, prompts.s[:, None], unions=True),
        Family("Pos", POSITIONS, prompts.pos[:, None]),
        Family("1st name", names, first[:, None], unions=True),
        Family("2nd name", names, second[:, None], unions=True),
        Family("any name", names, both, unions=True),
        Family("gender of S", GENDERS, prompts.gender[prompts.s][:, None]),
    )


def together(codes: SparseCodes, family: Family) -> Float[Tensor, "values F"]:
    """How many prompts have the property and the latent active."""
    active = codes.positive()
    F, n_values = codes.d_sae, len(family.values)
    pairs = family.labels[active.row_ids] * F + active.latents[:, None]
    return torch.bincount(pairs.reshape(-1), minlength=n_values * F).reshape(n_values, F).double()


def f1_scores(codes: SparseCodes, family: Family) -> Float[Tensor, "values F"]:
    """`2 |active ∩ property| / (|active| + |property|)`; 0 where both are empty."""
    total = family.size[:, None] + codes.fired()
    return (2 * together(codes, family) / total.clamp(min=1)).float()


class Unions(NamedTuple):
    """For each latent the union of names with the highest F1.

    Attributes:
        f1: of the union.  length: how many names it has.
        names: each latent's names by falling F1; the first `length` are the union.
    """

    f1: Float[Tensor, "F"]
    length: Int[Tensor, "F"]
    names: Int[Tensor, "F most"]


def best_unions(codes: SparseCodes, family: Family, f1: Float[Tensor, "values F"], most: int = MOST_NAMES) -> Unions:
    """Of each latent's names by falling F1, the prefix of at most `most` whose union has the highest F1.

    Prompts that two names of a prefix share are counted once.

    Args:
        f1: of the single names.
    """
    active, F, n_values = codes.positive(), codes.d_sae, len(family.values)
    names = f1.T.sort(dim=1, descending=True, stable=True).indices[:, :most]
    most = names.shape[1]
    place = torch.full((F, n_values), most, dtype=torch.int64)
    place.scatter_(1, names, torch.arange(most).expand(F, -1))
    # A prompt joins a latent's unions with the first of the latent's names that it has.
    joins = place[active.latents[:, None], family.labels[active.row_ids]].amin(1)
    counts = torch.bincount(active.latents * (most + 1) + joins, minlength=F * (most + 1)).reshape(F, most + 1)
    both = counts[:, :most].cumsum(1).double()
    scores = 2 * both / (_union_sizes(family, names) + codes.fired()[:, None]).clamp(min=1)
    best = scores.max(dim=1)
    return Unions(best.values.float(), best.indices + 1, names)


def _union_sizes(family: Family, names: Int[Tensor, "F most"]) -> Float[Tensor, "F most"]:
    """Prompts with any of the first 1, 2, … names of each latent."""
    sizes = family.size[names].cumsum(1)
    if family.labels.shape[1] == 1:
        return sizes
    n_values = len(family.values)
    one, other = family.labels.unbind(1)
    shared = torch.bincount(one * n_values + other, minlength=n_values**2).reshape(n_values, n_values).double()
    shared = shared + shared.T
    for step in range(1, names.shape[1]):
        overlap = shared[names[:, step, None], names[:, :step]].sum(1)
        sizes[:, step:] -= overlap[:, None]
    return sizes


class Meaning(NamedTuple):
    """The property that describes a latent best."""

    latent: int
    family: str
    values: tuple[str, ...]
    """One property, or the names of a union."""
    f1: float


@dataclass(frozen=True, eq=False)
class PropertyTable:
    """F1 of every latent with every property, on the prompts of one node.

    Attributes:
        f1: of the single properties, by family.
        unions: of the best unions, by family.
        values: names of the properties, by family.
        present: which properties any prompt has, by family.
        active: which latents are active anywhere.
    """

    f1: Mapping[str, Float[Tensor, "values F"]]
    unions: Mapping[str, Unions]
    values: Mapping[str, tuple[str, ...]]
    present: Mapping[str, Bool[Tensor, "values"]]
    active: Bool[Tensor, "F"]

    @classmethod
    def of(cls, codes: SparseCodes, prompts: Prompts) -> PropertyTable:
        """Of the codes of these prompts' activations."""
        all_families = families(prompts)
        f1 = {family.name: f1_scores(codes, family) for family in all_families}
        return cls(
            f1,
            {family.name: best_unions(codes, family, f1[family.name]) for family in all_families if family.unions},
            {family.name: family.values for family in all_families},
            {family.name: family.size > 0 for family in all_families},
            codes.fired() > 0,
        )

    @cached_property
    def best_by_family(self) -> dict[str, Float[Tensor, "F"]]:
        """The highest F1 of every latent in each family, unions included."""
        return {name: self.unions[name].f1 if name in self.unions else f1.amax(0) for name, f1 in self.f1.items()}

    @cached_property
    def best(self) -> Float[Tensor, "F"]:
        """The highest F1 of every latent with any property; 0 for a latent that is never active."""
        return torch.stack(list(self.best_by_family.values())).amax(0)

    def meaning(self, latent: int) -> Meaning:
        """The best property of one latent (of equals, that of the earlier family)."""
        family = max(self.best_by_family, key=lambda name: float(self.best_by_family[name][latent]))
        values = self.values[family]
        if family in self.unions:
            union = self.unions[family]
            chosen = union.names[latent, : int(union.length[latent])].tolist()
        else:
            chosen = [int(self.f1[family][:, latent].argmax())]
        return Meaning(latent, family, tuple(values[i] for i in chosen), float(self.best_by_family[family][latent]))
