"""One forward (and, for gradients, one backward) pass over rows of tokens, at several sites at once.

What the token policy leaves out for its activation's sake is known only here: attention sinks (`policy.sink_site`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from saelab.activations.columns import Column, sites_of
from saelab.corpora.policy import TokenPolicy
from saelab.corpora.rows import Reason, TokenRows
from saelab.corpora.sinks import are_sinks
from saelab.errors import UserError
from saelab.models import LanguageModel, Site


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
        self.tokenizer = tokenizer_of(model)
        assert model.tokenizer_fingerprint is not None  # it has a tokenizer
        self.tokenizer_fingerprint = model.tokenizer_fingerprint
        self.model, self.columns = model, tuple(columns)
        self._sinks = _Sinks(model, policy)
        self._gradients = sites_of(columns, gradient=True)
        sites = sites_of(columns, gradient=False)
        self._sites = sites if self._sinks.site in (None, *sites) else [*sites, self._sinks.site]

    def __call__(self, rows: TokenRows) -> tuple[TokenRows, dict[Column, Float[Tensor, "kept width"]]]:
        """The rows without sinks, and each column's values at their kept tokens, in their order.

        Values are in the model's dtype on its device.
        """
        if self._gradients:
            made = self.model.activations_and_gradients(rows.ids, self._sites, self._gradients, real=rows.real)
        else:
            made = self.model.activations(rows.ids, self._sites), {}
        rows = self._sinks.leave_out(rows, made[0])
        kept = rows.keep.flatten().nonzero()[:, 0].to(self.model.device)
        whole = {column: made[column.gradient][column.site] for column in self.columns}
        return rows, {column: values.flatten(0, 1).index_select(0, kept) for column, values in whole.items()}

    def without_sinks(self, rows: TokenRows) -> TokenRows:
        """The rows as a call would return them. The model runs only where the policy looks at sinks, up to there."""
        return self._sinks(rows)


def without_sinks(model: LanguageModel, policy: TokenPolicy, rows: Iterable[TokenRows]) -> Iterator[TokenRows]:
    """Packed rows as the policy has them: its sinks left out too. What is trained, evaluated and indexed are these.

    Args:
        model: runs up to `policy.sink_site`, where there is one, and not at all where there is none.

    Raises:
        UserError: the model does not have that site.
    """
    return map(_Sinks(model, policy), rows)


def tokenizer_of(model: LanguageModel) -> PreTrainedTokenizerFast:
    """The model's tokenizer.

    Raises:
        UserError: it has none that reads text here.
    """
    if not isinstance(model.tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"model {model.name!r} has no tokenizer, so text can't be read; add tokenizer.json to it")
    return model.tokenizer


class _Sinks:
    """Finds the sinks of rows, where the policy asks for it."""

    def __init__(self, model: LanguageModel, policy: TokenPolicy) -> None:
        self.model, self.times = model, policy.sink_norm
        self.site = None if policy.sink_site is None else Site.parse(policy.sink_site)
        if self.site is not None:
            model.check(self.site)

    def __call__(self, rows: TokenRows) -> TokenRows:
        return rows if self.site is None else self.leave_out(rows, self.model.activations(rows.ids, [self.site]))

    def leave_out(self, rows: TokenRows, x: dict[Site, Float[Tensor, "n context width"]]) -> TokenRows:
        """The rows without the sinks that their activations show."""
        if self.site is None:
            return rows
        found = are_sinks(x[self.site], rows.real.to(self.model.device), self.times)
        return rows.leave_out(found.cpu(), Reason.SINK)
