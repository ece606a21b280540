"""How much of a known dictionary a trained one recovers: its directions, when its features fire, its hierarchy.

Source: mean max cosine as in the toy experiments of sparse dictionary learning (arXiv 2309.08600, section 3);
absorption is the phenomenon of arXiv 2409.14507. F1 on split halves and the measure of absorption are our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.evaluation.sums import FiringCounts, RunningMean, reconstruction_terms
from saelab.evaluation.truth.assignment import best_assignment
from saelab.evaluation.truth.synthetic import Drawn, Truth

RECOVERED = 0.9  # cosine above which a true feature counts as found
GROUPS = 10  # features by frequency: tenths, the most frequent first


@dataclass(frozen=True)
class Recovery:
    """What is said about one dictionary; a list has an entry for each tenth of the features, most frequent first.

    Means over features or families that were never seen to fire leave those out; None where none is left.
    """

    max_cosine: float
    """Mean over true features of the cosine with the nearest decoder row."""
    recovered: float
    """Share of true features with a decoder row nearer than `RECOVERED`."""
    matched_cosine: float | None
    """Mean cosine when every feature has a decoder row to itself, matched for the largest sum; None where d_sae is
    too small."""
    f1: float | None
    """Mean over true features of the F1 of their best latent: chosen by F1 on one half of the tokens, scored on the
    other."""
    max_cosine_by_frequency: list[float]
    recovered_by_frequency: list[float]
    f1_by_frequency: list[float | None]
    absorbed: float | None
    """Mean over parents: share of their firings beside a firing child on which the parent's best latent is silent."""
    missed_alone: float | None
    """The same for firings beside no child: what is missed anyhow; the excess of `absorbed` over it is absorption."""
    fvu: float
    """Share of variance left unexplained, noise included."""
    l0: float
    """Mean number of active latents, by the dictionary's inference rule."""
    dead: int
    """Latents silent on all held-out tokens."""
    tokens: int


def recovery(dictionary: Dictionary, truth: Truth, tokens: int = 65_536) -> Recovery:
    """Hold `dictionary` against `truth` on `tokens` tokens that it was not trained on.

    Raises:
        UserError: the dictionary is not made for activations of this width.
    """
    if dictionary.d_in != truth.d_in:
        raise UserError(f"the dictionary reads {dictionary.d_in} numbers, but the truth makes {truth.d_in}")
    cosine = normalize(truth.directions, dim=1) @ normalize(dictionary.W_dec, dim=1).T
    nearest = cosine.amax(1)
    fits = truth.config.n_features <= dictionary.d_sae
    matched = cosine.gather(1, best_assignment(cosine)[:, None]).mean() if fits else None
    firing = Firing(truth, dictionary.d_sae)
    fidelity = _Fidelity(truth, dictionary.d_sae)
    for drawn in truth.held_out(tokens):
        codes = dictionary.encode(drawn.x)
        firing.see(drawn, codes.to_dense() > 0)
        fidelity.see(drawn, dictionary.decode(codes))
        fidelity.counts.add(codes)
    f1, absorbed, missed_alone = firing.f1(), *firing.missed()
    return Recovery(
        max_cosine=float(nearest.mean()),
        recovered=float((nearest > RECOVERED).double().mean()),
        matched_cosine=None if matched is None else float(matched),
        f1=_mean(f1),
        max_cosine_by_frequency=[float(group.mean()) for group in nearest.tensor_split(GROUPS)],
        recovered_by_frequency=[float((g > RECOVERED).double().mean()) for g in nearest.tensor_split(GROUPS)],
        f1_by_frequency=[_mean(group) for group in f1.tensor_split(GROUPS)],
        absorbed=_mean(absorbed),
        missed_alone=_mean(missed_alone),
        fvu=fidelity.fvu,
        l0=fidelity.counts.l0,
        dead=fidelity.counts.dead,
        tokens=fidelity.counts.n_tokens,
    )


class Firing:
    """Who fires beside whom, counted batch by batch, on two halves of the tokens: one to choose latents, one to score.

    Attributes:
        features, latents: `[2, …]` firings in each half.
        both: `[2, n_features, d_sae]` tokens on which both fire.
        parents: features that have children.  beside: `[2, 2, parents]` a parent's firings without, with a child.
        beside_both: `[2, 2, parents, d_sae]` those on which a latent fires too.
    """

    def __init__(self, truth: Truth, d_sae: int) -> None:
        n = truth.config.n_features
        children = truth.parent != torch.arange(n)
        self.parents = truth.parent[children].unique()
        # [n_features, parents]: whose child a feature is
        self._child_of = (children[:, None] & (truth.parent[:, None] == self.parents)).float()
        zeros = partial(torch.zeros, dtype=torch.float64)
        self.features, self.latents, self.both = zeros(2, n), zeros(2, d_sae), zeros(2, n, d_sae)
        self.beside, self.beside_both = zeros(2, 2, len(self.parents)), zeros(2, 2, len(self.parents), d_sae)

    def see(self, drawn: Drawn, fires: Bool[Tensor, "n d_sae"]) -> None:
        """Take in tokens: even ones choose, odd ones score."""
        truly = (drawn.codes.to_dense() > 0).float()
        with_child = (truly @ self._child_of > 0).float()
        for half in range(2):
            features, latents = truly[half::2], fires[half::2].float()
            self.features[half] += features.sum(0)
            self.latents[half] += latents.sum(0)
            self.both[half] += features.T @ latents
            for child in range(2):
                parents = features[:, self.parents] * (with_child[half::2] == child)
                self.beside[half, child] += parents.sum(0)
                self.beside_both[half, child] += parents.T @ latents

    def best(self) -> Int[Tensor, "n_features"]:
        """The latent whose F1 with each feature is highest on the half that chooses."""
        return self._f1(0).argmax(1)

    def f1(self) -> Float[Tensor, "n_features"]:
        """F1 of every feature's best latent on the half that scores; NaN for a feature that did not fire there."""
        f1 = self._f1(1).gather(1, self.best()[:, None])[:, 0]
        return torch.where(self.features[1] > 0, f1, torch.nan)

    def missed(self) -> tuple[Float[Tensor, "parents"], Float[Tensor, "parents"]]:
        """Share of a parent's firings that its best latent misses, beside a firing child and beside none."""
        latent = self.best()[self.parents]
        caught = self.beside_both[1][:, torch.arange(len(latent)), latent]
        alone, absorbed = 1 - caught / self.beside[1]  # 0 / 0 is NaN: never seen
        return absorbed, alone

    def _f1(self, half: int) -> Float[Tensor, "n_features d_sae"]:
        fired = self.features[half][:, None] + self.latents[half]
        return 2 * self.both[half] / fired.clamp(min=1)


class _Fidelity:
    """FVU and L0 of the same tokens."""

    def __init__(self, truth: Truth, d_sae: int) -> None:
        self.counts, self.mean = FiringCounts(d_sae), RunningMean(truth.d_in)
        self.centre = truth.offset
        self.residual = self.scatter = 0.0

    def see(self, drawn: Drawn, x_hat: Float[Tensor, "n d_in"]) -> None:
        terms = reconstruction_terms(drawn.x, x_hat, self.centre)
        self.mean.add(drawn.x)
        self.residual += float(terms["residual"].sum())
        self.scatter += float(terms["scatter"].sum())

    @property
    def fvu(self) -> float:
        off_centre = float((self.mean.mean - self.centre).square().sum())
        return self.residual / (self.scatter - self.mean.n * off_centre)


def _mean(values: Float[Tensor, "n"]) -> float | None:
    known = values[~values.isnan()]
    return float(known.mean()) if len(known) else None
