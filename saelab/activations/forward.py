"""One forward (and, for gradients, one backward) pass over rows of tokens, at several sites at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from saelab.activations.columns import Column, sites_of
from saelab.corpora.packing import TokenRows
from saelab.corpora.policy import TokenPolicy
from saelab.errors import UserError
from saelab.models import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Forward:
    """A model, checked once for what it will be asked.

    Raises:
        UserError: a site that the model does not have, rows longer than its context, or a model without a tokenizer.
    """

    def __init__(self, model: LanguageModel, policy: TokenPolicy, columns: Sequence[Column]) -> None:
        for column in columns:
            model.check(column.site)
        if policy.context > model.n_ctx:
            raise UserError(
                f"policy.context = {policy.context} exceeds the context of model {model.name!r}, which is {model.n_ctx}"
            )
        if model.tokenizer is None or model.tokenizer_fingerprint is None:
            raise UserError(f"model {model.name!r} comes without a tokenizer, which turning text into tokens needs")
        self.model, self.columns = model, tuple(columns)
        self._sites, self._gradients = sites_of(columns, gradient=False), sites_of(columns, gradient=True)
        self.tokenizer: PreTrainedTokenizerFast = model.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
        self.tokenizer_fingerprint = model.tokenizer_fingerprint

    def __call__(self, rows: TokenRows) -> dict[Column, Float[Tensor, "kept width"]]:
        """Each column's values at the rows' kept tokens, in their order, in the model's dtype on its device."""
        if self._gradients:
            made = self.model.activations_and_gradients(rows.ids, self._sites, self._gradients, real=rows.real)
        else:
            made = self.model.activations(rows.ids, self._sites), {}
        kept = rows.keep.flatten().nonzero()[:, 0].to(self.model.device)
        whole = {column: made[column.gradient][column.site] for column in self.columns}
        return {column: values.flatten(0, 1).index_select(0, kept) for column, values in whole.items()}
