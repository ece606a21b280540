"""Supervised dictionaries: a vector for every value of every attribute, computed from labelled activations.

Source: arXiv 2405.08366 (METHODS §5). `a(p) ≈ E[a] + Σ_g u_{g, v_g(p)}` over groups g of attributes. Independent groups
are IO, S and Pos. Coupled groups are IO × Pos and S × Pos: a name has one vector in either place of the first clause,
and there is no vector for Pos alone (our reading of the pairing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

import saelab
from saelab.activations.source import Origin
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, Group, GroupChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.evaluation.ioi.edits import EditPath
from saelab.evaluation.ioi.features import Features
from saelab.evaluation.ioi.task import Attribute, Prompts
from saelab.kernels.codes import SparseCodes

Parametrisation = Literal["independent", "coupled"]
Method = Literal["mean", "mse"]

GROUPS: Final[Mapping[Parametrisation, tuple[tuple[Attribute, ...], ...]]] = {
    "independent": (("IO",), ("S",), ("Pos",)),
    "coupled": (("IO", "Pos"), ("S", "Pos")),
}
POSITIONS: Final = ("ABB", "BAB")
RIDGE = 1e-3  # of the mean variance, added to covariances before they are inverted


def groups_of(prompts: Prompts, parametrisation: Parametrisation) -> tuple[Group, ...]:
    """Groups of latents in order, with what each latent stands for."""
    return tuple(
        Group(name=" x ".join(attributes), values=_value_names(prompts, attributes))
        for attributes in GROUPS[parametrisation]
    )


def labels(prompts: Prompts, parametrisation: Parametrisation) -> Int[Tensor, "n groups"]:
    """The latent of each group that is true of each prompt."""
    columns, first = [], 0
    for attributes in GROUPS[parametrisation]:
        value, size = torch.zeros_like(prompts.pos), 1
        for attribute in attributes:
            value = value * prompts.n_values(attribute) + prompts.value(attribute)
            size *= prompts.n_values(attribute)
        columns.append(value + first)
        first += size
    return torch.stack(columns, dim=1)


@dataclass(frozen=True, eq=False)
class Design:
    """The one-hot matrix C of labelled prompts, as counts; the same for all nodes, so it is made once.

    Attributes:
        labels: latent of each group in each prompt.
    """

    parametrisation: Parametrisation
    groups: tuple[Group, ...]
    labels: Int[Tensor, "n groups"]

    @classmethod
    def of(cls, prompts: Prompts, parametrisation: Parametrisation = "independent") -> Design:
        """The design of `prompts`."""
        return cls(parametrisation, groups_of(prompts, parametrisation), labels(prompts, parametrisation))

    @property
    def n_latents(self) -> int:
        return sum(len(group.values) for group in self.groups)

    @property
    def counts(self) -> Float[Tensor, "F"]:
        """Prompts with each value."""
        return torch.bincount(self.labels.reshape(-1), minlength=self.n_latents).double()

    @cached_property
    def inverse(self) -> Float[Tensor, "F F"]:
        """`(CᵀC)⁺` in float64; CᵀC counts how often two values stand in one prompt."""
        F, n_groups = self.n_latents, self.labels.shape[1]
        pairs = (self.labels[:, :, None] * F + self.labels[:, None, :]).reshape(-1, n_groups**2)
        together = torch.bincount(pairs.reshape(-1), minlength=F * F).reshape(F, F)
        return torch.linalg.pinv(together.double(), hermitian=True)

    def sums(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "F d"]:
        """`CᵀA` in float64: the sum of the rows of x with each value."""
        total = x.new_zeros(self.n_latents, x.shape[1], dtype=torch.float64)
        for column in self.labels.unbind(1):
            total.index_add_(0, column, x.double())
        return total


@dataclass(frozen=True, eq=False)
class Supervised:
    """A supervised dictionary of one node.

    Attributes:
        method: how the vectors were computed.
        bias: E[a].
        vectors: u of every value, group behind group; zero for a value that the fit never saw.
    """

    method: Method
    parametrisation: Parametrisation
    groups: tuple[Group, ...]
    bias: Float[Tensor, "d"]
    vectors: Float[Tensor, "F d"]

    def labels(self, prompts: Prompts) -> Int[Tensor, "n groups"]:
        """The true latents of `prompts`."""
        return labels(prompts, self.parametrisation)

    def encode(self, x: Float[Tensor, "n d"], prompts: Prompts) -> SparseCodes:
        """Code 1 at every true value; x is not looked at."""
        true = self.labels(prompts).to(x.device)
        offsets = torch.arange(len(true) + 1, device=x.device) * true.shape[1]
        ones = torch.ones(true.numel(), dtype=self.vectors.dtype, device=x.device)
        return SparseCodes(ones, true.reshape(-1), offsets, len(self.vectors), (len(true),))

    def features(self, name: str) -> Features:
        """What the tests see: codes by the true labels."""
        return Features(name, self.vectors, self.bias, self.encode)

    def path(self, x: Float[Tensor, "n d"], source: Prompts, target: Prompts) -> EditPath:
        """The edit `a − u_{g,v} + u_{g,v'}` in every group whose value differs, a removal and an addition for each."""
        before, after = self.labels(source).to(x.device), self.labels(target).to(x.device)
        latents = torch.cat([before, after], dim=1)
        changed = (before != after).repeat(1, 2)
        removes = torch.arange(latents.shape[1], device=x.device) < before.shape[1]
        order = (~changed).int().argsort(dim=1, stable=True)  # steps that change nothing come last
        steps = torch.where(changed, latents, -1).gather(1, order)
        removed = (changed & removes).to(self.vectors).gather(1, order)
        added = (changed & ~removes).to(self.vectors).gather(1, order)
        return EditPath.of(x, self.vectors, steps, removed, added, self.vectors[before].sum(1))

    def edit(self, x: Float[Tensor, "n d"], source: Prompts, target: Prompts) -> Float[Tensor, "n d"]:
        """Activations of `source` with the values of `target`: `a − u_{g,v} + u_{g,v'}` in every group."""
        path = self.path(x, source, target)
        return path.edited([path.longest])[path.longest]

    def dictionary(self, x: Float[Tensor, "n d"], prompts: Prompts, origin: Origin) -> Dictionary:
        """The dictionary at rest, which has to encode an activation without labels.

        In every group the value with the largest linear discriminant is chosen: for group g, with Σ_g the covariance of
        `a − u_g` (noise and the other groups), `W_enc = Σ_g⁻¹ u` and `b_enc = −½ uᵀ Σ_g⁻¹ u`, which is the likeliest
        value if all of that is Gaussian. Values that the fit never saw have zero vectors and can be chosen too: they
        stand for "like the mean". Source: Fisher's discriminant; the paper has no unlabelled encoder (our own).

        Args:
            x: activations to estimate the covariances from, with their prompts.
        """
        centred, vectors, true = (x - self.bias).double(), self.vectors.double(), self.labels(prompts)
        W_enc, b_enc = torch.empty_like(vectors), vectors.new_empty(len(vectors))
        first = 0
        for number, group in enumerate(self.groups):
            some = slice(first, first + len(group.values))
            rest = centred - vectors[true[:, number]]
            covariance = rest.T @ rest / len(rest)
            covariance.diagonal().add_(RIDGE * covariance.diagonal().mean().clamp(min=1e-30))
            W_enc[some] = torch.linalg.solve(covariance, vectors[some].T).T
            b_enc[some] = -(W_enc[some] * vectors[some]).sum(1) / 2
            first += len(group.values)
        config = DictionaryConfig(
            kind="supervised", architecture=f"supervised {self.method} {self.parametrisation}", d_in=x.shape[1],
            d_sae=len(vectors), k=len(self.groups), affinity=ActivationAffinity(),
            allocation=GroupChoice(groups=self.groups), rule="group", scale=1.0, site=origin.site, model=origin.model,
            model_fingerprint=origin.model_fingerprint, tokenizer_fingerprint=origin.tokenizer_fingerprint,
            policy=origin.policy.model_dump(mode="json"), tokens_trained=len(x), saelab_version=saelab.__version__,
        )  # fmt: skip
        return Dictionary(
            W_enc.to(self.vectors), self.vectors, b_enc.to(self.vectors), self.bias, torch.empty(0), config
        )


def fit(design: Design, x: Float[Tensor, "n d"], method: Method = "mse") -> Supervised:
    """Vectors of every value from the activations of one node; computed in float64, kept in x's dtype.

    mean: `u_{g,v} = mean(a | g = v) − mean(a)`. mse: least squares of the centred activations on the one-hot matrix C,
    `U = (CᵀC)⁺ CᵀA`, of all solutions the shortest. Where attributes are drawn independently the two agree but for
    sampling; coupled means count what Pos adds twice, once in each group, and coupled least squares does not.

    Args:
        x: activations of the design's prompts, row by row.
    """
    bias = x.double().mean(0)
    sums = design.sums(x.double() - bias)
    vectors = design.inverse @ sums if method == "mse" else sums / design.counts[:, None].clamp(min=1)
    return Supervised(method, design.parametrisation, design.groups, bias.to(x.dtype), vectors.to(x.dtype))


def _value_names(prompts: Prompts, attributes: tuple[Attribute, ...]) -> tuple[str, ...]:
    names = [""]
    for attribute in attributes:
        values = POSITIONS if attribute == "Pos" else prompts.names
        names = [f"{before} x {value}" if before else value for before in names for value in values]
    return tuple(names)
