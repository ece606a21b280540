"""Thresholds that keep the budget: how many latents are active under the inference rule, and how to set that right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.kernels.backend import choose

TOLERANCE = 0.05  # of k: beyond it a dictionary does not do at inference what it was trained to do


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
        raise UserError(f"a {dictionary.config.architecture} dictionary keeps its k best latents: it has no thresholds")
    k, kept, tokens = dictionary.config.k, [], 0
    for x in batches:
        ratios = dictionary.pre_activations(x) / dictionary.threshold
        # Uneven batches: twice the budget of each surely holds what the whole wants of it, unless it holds everything.
        kept.append(choose().select_mutual(ratios, min(2 * k * len(x), ratios.numel())).values)
        tokens += len(x)
    ratios = torch.sort(torch.cat(kept), descending=True).values if kept else torch.empty(0)
    budget = k * tokens
    if len(ratios) <= budget or ratios[budget - 1] <= 0:
        raise UserError(f"fewer than k = {k} latents per token are positive here: no threshold can keep the budget")
    factor = float((ratios[budget - 1] + ratios[budget].clamp(min=0)) / 2)
    never = torch.finfo(torch.float32).max
    silent = dictionary.threshold >= never
    threshold = torch.where(silent, dictionary.threshold, dictionary.threshold * factor)
    return replace(dictionary, threshold=threshold)
