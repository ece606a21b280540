"""Absorption: a label's latents fall silent just where a more specific latent does their work.

Source: arXiv 2409.14507, sections 3 and 4 (feature absorption), our reading: where the paper asks for the effect of an
ablation we ask for the share of the probe's projection that a latent's own contribution makes up, and the labels of the
corpus say which latents are specific to a label.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from saelab.evaluation.labels.report import Absorber, Absorption
from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes

COSINE = 0.1  # least cosine of an absorbing latent's decoder direction with the probe's
SHARE = 0.4  # of the probe's projection that it must make up alone
SPECIFIC = 0.5  # share of its firings that must carry the label
_NAMED = 3


class Specificity(NamedTuple):
    """How latents and labels go together where detectors are fitted."""

    precision: Float[Tensor, "d_sae labels"]
    """Share of a latent's firings that carry the label; NaN for a latent that never fires."""
    recall: Float[Tensor, "d_sae labels"]
    """Share of a label's tokens on which the latent fires."""
    density: Float[Tensor, "d_sae"]


class Ceiling(NamedTuple):
    """What the dense probe sees where detectors are judged."""

    detected: Bool[Tensor, "tokens labels"]
    """Tokens with the label on which the probe says so."""
    direction: Float[Tensor, "width labels"]
    """The probe's, of length 1 in the model's units."""
    projection: Float[Tensor, "tokens labels"]
    """How much further along it a token lies than the mean token without the label."""


def specificity(codes: SparseCodes, labels: Bool[Tensor, "tokens labels"]) -> Specificity:
    """Counts of joint firings, over codes that fire."""
    backend = choose(device=codes.values.device)
    ones = torch.ones_like(codes.values)
    hits = backend.row_gradients(codes, ones, labels.float())
    fired = backend.latent_sums(codes, ones)
    return Specificity(hits / fired[:, None], hits / labels.sum(0), fired / codes.rows)


def main_latents(chosen: Int[Tensor, "k"], label: int, where: Specificity) -> Int[Tensor, "main"]:
    """Those of a probe's latents that speak for the label: they fire more often with it than they do at all."""
    return chosen[where.recall[chosen, label] > where.density[chosen]]


def absorption(
    codes: SparseCodes,
    label: int,
    main: Int[Tensor, "main"],
    where: Specificity,
    ceiling: Ceiling,
    directions: Float[Tensor, "d_sae width"],
) -> tuple[Absorption | None, Bool[Tensor, "tokens"]]:
    """Which of a label's tokens are absorbed, and what is to be said of them.

    Args:
        codes: where detectors are judged, codes that fire.
        directions: what a unit of each code adds to the activation, in the model's units.

    Returns:
        None where the label has no main latent, or the dense probe detects none of its tokens; and for each token
        whether it is absorbed.
    """
    detected = ceiling.detected[:, label]
    absorbed = torch.zeros_like(detected)
    tokens = int(detected.sum())
    if not tokens or not len(main):
        return None, absorbed
    some = codes.rows_where(detected)
    silent = torch.ones(some.rows, dtype=torch.bool)
    silent[some.row_ids[torch.isin(some.latents, main)]] = False

    along = directions @ ceiling.direction[:, label]
    cosine = normalize(directions, dim=1) @ ceiling.direction[:, label]
    specific = (cosine >= COSINE) & (where.precision[:, label] >= SPECIFIC)
    contribution = some.values * along[some.latents]
    needed = ceiling.projection[detected, label]
    enough = (needed > 0)[some.row_ids] & (contribution >= SHARE * needed[some.row_ids])
    takes_over = silent[some.row_ids] & specific[some.latents] & enough

    most = contribution.new_zeros(some.rows)
    most.scatter_reduce_(0, some.row_ids[takes_over], contribution[takes_over], "amax")
    leads = takes_over & (contribution == most[some.row_ids])
    counts = torch.bincount(some.latents[leads], minlength=codes.d_sae)
    absorbed[detected] = most > 0
    return Absorption(
        main=tuple(main.tolist()),
        tokens=tokens,
        main_recall=1 - float(silent.double().mean()),
        rate=float(absorbed.sum()) / tokens,
        absorbers=[
            Absorber(
                latent=latent,
                tokens=int(counts[latent]),
                cosine=float(cosine[latent]),
                precision=float(where.precision[latent, label]),
            )
            for latent in counts.argsort(descending=True, stable=True)[:_NAMED].tolist()
            if counts[latent]
        ],
    ), absorbed
