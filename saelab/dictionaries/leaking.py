"""Gradient-aware selection: a gradient dictionary encoding as it did in training, with ∇L in sight.

∇L contains the true next token, so codes chosen by it carry the label that a language model has to predict: what is
measured on them bounds what selection could do and says nothing about use. For evaluation, where it is marked; nothing
else may import this file (a test sees to it). Source: METHODS §1, "Inference".
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries import affinity
from saelab.dictionaries.allocation import MutualAllocation, TokenAllocation
from saelab.dictionaries.config import DictionaryConfig, GradientAffinity
from saelab.dictionaries.dictionary import Dictionary
from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes


def was_selected_by_gradient(config: DictionaryConfig) -> bool:
    """Whether training chose matches by the gradient affinity, so that there is something to compare."""
    return isinstance(config.affinity, GradientAffinity)


def encode(dictionary: Dictionary, x: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]) -> SparseCodes:
    """Codes of activations in model units, chosen by training's affinity; only latents that fire are in them.

    Token choice keeps each token's k best. The other allocations spent a batch's budget in training, and do so here:
    the k·B largest affinities in units of each latent's threshold, which for mutual choice is one threshold for all
    and drops out, and for feature choice stands for the latents' different budgets (our reading). |g| is normalised
    over the batch as in training, so that the codes of a token depend on its batch.

    Args:
        gradient: ∇_x L of the summed next-token loss at the site, of the same tokens.
    """
    config = dictionary.config
    if not isinstance(config.affinity, GradientAffinity):
        raise ValueError(f"a {config.architecture} dictionary was not trained with gradients")
    z = dictionary.pre_activations(x.reshape(-1, x.shape[-1]))
    wanted = affinity.scores(config.affinity, z, gradient.reshape(-1, x.shape[-1]).to(z), dictionary.W_dec)
    if config.rule == "topk":
        codes = TokenAllocation().select(wanted, config.k, choose(device=wanted.device))
    else:
        unit = dictionary.threshold.clamp(min=torch.finfo(torch.float32).tiny).to(wanted)
        codes = MutualAllocation().select(wanted / unit, config.k, choose(device=wanted.device))
    kept = wanted if config.affinity.value == "affinity" else z
    codes = codes.with_values(kept[codes.row_ids, codes.latents]).positive()
    return codes.reshape(*x.shape[:-1])
