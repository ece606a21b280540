"""Thresholds that keep the budget: how many latents are active under the inference rule, and how to set that right.

One factor for all thresholds keeps the proportions among latents that training found, and has one number to get wrong.
Thresholds latent by latent undo what drifted between latents, and lean on few tokens where latents are rare.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.allocation import FeatureAllocation, budget_shares
from saelab.dictionaries.config import FeatureChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.kernels.backend import choose

_NEVER = torch.finfo(torch.float32).max  # threshold of a latent that never fired in training
_KEPT_AT_LEAST = 2**12  # ratios of a batch
_TILE_ELEMENTS = 2**25  # pre-activations held at once: 128 MB in fp32


def active_per_token(dictionary: Dictionary, batches: Iterable[Float[Tensor, "B d"]]) -> float:
    """Mean number of active latents under the inference rule, over activations in model units."""
    active = tokens = 0
    for x in batches:
        active += dictionary.encode(x).nnz
        tokens += len(x)
    if not tokens:
        raise UserError("there are no activations to count active latents on")
    return active / tokens


def calibrated(dictionary: Dictionary, batches: Iterable[Float[Tensor, "B d"]]) -> Dictionary:
    """The dictionary with all thresholds multiplied by the one factor that makes k latents active per token here.

    A match is active above factor c when `z_ti / θ_i > c`; so c lies between the (k·n)-th largest of these ratios and
    the next. One factor keeps the proportions among latents that training found. Source: our reading.

    Raises:
        UserError: the dictionary has no thresholds, or fewer than k matches per token are positive.
    """
    if dictionary.config.rule != "threshold":
        raise UserError(
            f"a {dictionary.config.architecture} dictionary keeps a fixed number of latents: it has no thresholds"
        )
    k, kept, tokens = dictionary.config.k, [], 0
    for x in batches:
        ratios = dictionary.pre_activations(x) / dictionary.threshold
        # Batches differ: twice its budget surely holds what the whole wants of a batch, but for the smallest batches.
        most = min(max(2 * k * len(x), _KEPT_AT_LEAST), ratios.numel())
        kept.append(choose(device=ratios.device).select_mutual(ratios, most).values)
        tokens += len(x)
    ratios = torch.sort(torch.cat(kept), descending=True).values if kept else torch.empty(0)
    budget = k * tokens
    if len(ratios) <= budget or ratios[budget - 1] <= 0:
        raise UserError(f"fewer than k = {k} latents per token are positive here: no threshold can keep the budget")
    factor = float((ratios[budget - 1] + ratios[budget].clamp(min=0)) / 2)
    silent = dictionary.threshold >= _NEVER
    threshold = torch.where(silent, dictionary.threshold, dictionary.threshold * factor)
    return replace(dictionary, threshold=threshold)


def calibrated_per_latent(dictionary: Dictionary, x: Float[Tensor, "n d"]) -> Dictionary:
    """The dictionary with the thresholds that feature choice draws between kept and other matches of `x` as one batch.

    Budgets m_i are made as in training (uniform, or by a Zipf law over ranks by density), densities being those that
    the present thresholds give here. θ_i lies between the m_i-th largest pre-activation of latent i and the next, never
    below 0; a latent without a budget, or that never fired in training, keeps its threshold. Source: our reading.

    Args:
        x: activations in model units, all at once: a rare latent's threshold rests on the few that it wants.

    Raises:
        UserError: the dictionary was not trained by feature choice.
    """
    choice = dictionary.config.allocation
    if not isinstance(choice, FeatureChoice):
        raise UserError(
            f"thresholds of a {dictionary.config.architecture} dictionary are not made latent by latent; "
            "calibrate all by one factor"
        )
    density = dictionary.encode(x).fired().double() / len(x)
    shares = budget_shares(choice, density)
    budgets = FeatureAllocation(shares.cpu()).budgets(dictionary.config.k * len(x), len(x)).to(density.device)
    threshold = dictionary.threshold.clone()
    for latents in torch.arange(dictionary.d_sae, device=density.device).split(max(1, _TILE_ELEMENTS // len(x))):
        some = replace(dictionary, W_enc=dictionary.W_enc[latents], b_enc=dictionary.b_enc[latents])
        ranked = some.pre_activations(x).sort(dim=0, descending=True).values
        padded = torch.cat([ranked, torch.zeros_like(ranked[:1])])  # whoever wants every token ends below the smallest
        m = budgets[latents]
        last, following = (padded.gather(0, place[None])[0] for place in ((m - 1).clamp(min=0), m))
        keeps = (m == 0) | (threshold[latents] >= _NEVER)
        threshold[latents] = torch.where(keeps, threshold[latents], ((last + following) / 2).clamp(min=0).float())
    return replace(dictionary, threshold=threshold)
