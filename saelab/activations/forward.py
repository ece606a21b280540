"""One forward (and, for gradients, one backward) pass over rows of tokens, at several sites at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float
from torch import Tensor

from saelab.corpora.packing import TokenRows
from saelab.corpora.policy import TokenPolicy
from saelab.errors import UserError
from saelab.models import LanguageModel, Site

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class KeptActivations(NamedTuple):
    """Activations of the kept tokens of some rows, in the rows' order, in the model's dtype on its device."""

    activations: dict[Site, Float[Tensor, "kept width"]]
    gradients: dict[Site, Float[Tensor, "kept width"]]
    """Of the model's loss summed over all positions of all rows; empty unless asked for."""


class Forward:
    """A model, checked once for what it will be asked.

    Raises:
        UserError: a site that the model does not have, rows longer than its context, or a model without a tokenizer.
    """

    def __init__(
        self, model: LanguageModel, policy: TokenPolicy, sites: Sequence[Site], gradients: bool = False
    ) -> None:
        for site in sites:
            model.check(site)
        if policy.context > model.n_ctx:
            raise UserError(
                f"policy.context = {policy.context} exceeds the context of model {model.name!r}, which is {model.n_ctx}"
            )
        if model.tokenizer is None or model.tokenizer_fingerprint is None:
            raise UserError(f"model {model.name!r} comes without a tokenizer, which turning text into tokens needs")
        self.model, self.sites, self.wants_gradients = model, list(sites), gradients
        self.tokenizer: PreTrainedTokenizerFast = model.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
        self.tokenizer_fingerprint = model.tokenizer_fingerprint

    def __call__(self, rows: TokenRows) -> KeptActivations:
        gradients: dict[Site, Tensor] = {}
        if self.wants_gradients:
            activations, gradients = self.model.activations_and_gradients(rows.ids, self.sites)
        else:
            activations = self.model.activations(rows.ids, self.sites)
        keep = rows.keep.to(self.model.device)
        return KeptActivations(
            {site: activation[keep] for site, activation in activations.items()},
            {site: gradient[keep] for site, gradient in gradients.items()},
        )
