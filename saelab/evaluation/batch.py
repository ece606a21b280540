"""One batch of held-out text, run through the untouched model once and shared by all dictionaries and suites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.dictionaries.dictionary import Dictionary
from saelab.kernels.codes import SparseCodes
from saelab.models import Intervention, LanguageModel, Site


@dataclass(frozen=True, eq=False)
class Subject:
    """A dictionary under evaluation, the name it goes by, and where in the model it sits."""

    name: str
    dictionary: Dictionary
    site: Site


class Encoded(NamedTuple):
    """What a dictionary makes of the kept tokens of a batch."""

    x: Float[Tensor, "tokens d_in"]
    codes: SparseCodes
    x_hat: Float[Tensor, "tokens d_in"]


class Comparison(NamedTuple):
    """What replacing an activation does to the model's output at each scored position."""

    loss: Float[Tensor, "predictions"]
    kl: Float[Tensor, "predictions"]


class CleanBatch:
    """The clean run of some rows; everything that several readers ask for is computed once.

    Attributes:
        ids, documents, keep: `[rows, context]`; `keep` is False at positions that the token policy excludes.
        scored: `[rows, context - 1]`, the positions whose prediction counts: kept, with a next token in the row.
        x: activations at each site, `[rows, context, width]`.
    """

    def __init__(self, model: LanguageModel, rows: TokenRows, sites: Sequence[Site], with_output: bool) -> None:
        self.model = model
        self.ids: Int[Tensor, "rows context"] = rows.ids.to(model.device, torch.int64)
        self.documents: Int[Tensor, "rows context"] = rows.documents
        self.keep: Bool[Tensor, "rows context"] = rows.keep.to(model.device)
        self.scored: Bool[Tensor, "rows context-1"] = self.keep[:, :-1]
        self.x: dict[Site, Float[Tensor, "rows context width"]] = {}
        self._logits: Float[Tensor, "rows context d_vocab"] | None = None
        if with_output:
            with model.intervene(*(Intervention(site, self._recorder(site)) for site in sites)):
                self._logits = model.logits(self.ids)
        else:
            self.x = model.activations(self.ids, sites)
        self._encoded: dict[Subject, Encoded] = {}
        self._ablated: dict[tuple[Site, str], Float[Tensor, "predictions"]] = {}

    @property
    def kept_documents(self) -> Int[Tensor, "tokens"]:
        """Document of each kept token."""
        return self.documents[self.keep.cpu()]

    @property
    def scored_documents(self) -> Int[Tensor, "predictions"]:
        """Document of each scored position."""
        return self.documents[:, :-1][self.scored.cpu()]

    @property
    def logits(self) -> Float[Tensor, "rows context d_vocab"]:
        """Output of the untouched model; only there when the batch was made with it."""
        assert self._logits is not None
        return self._logits

    @cached_property
    def clean_loss(self) -> Float[Tensor, "predictions"]:
        """Cross-entropy of the untouched model at each scored position."""
        losses = [_loss(*row) for row in zip(self.logits, self.ids, self.scored, strict=True)]
        return torch.cat(losses)

    def encoded(self, subject: Subject) -> Encoded:
        """Codes and reconstruction of the kept tokens, for whoever asks first and all who ask later."""
        if subject not in self._encoded:
            x = self.x[subject.site][self.keep].float()
            codes = subject.dictionary.encode(x)
            self._encoded[subject] = Encoded(x, codes, subject.dictionary.decode(codes))
        return self._encoded[subject]

    def ablated_loss(self, site: Site, name: str, value: Float[Tensor, "width"]) -> Float[Tensor, "predictions"]:
        """Loss with the kept positions of `site` set to `value`; computed once for each (site, name)."""
        if (site, name) not in self._ablated:
            logits = self.substituted(site, value)
            self._ablated[site, name] = torch.cat(
                [_loss(*row) for row in zip(logits, self.ids, self.scored, strict=True)]
            )
        return self._ablated[site, name]

    def compare(self, site: Site, value: Float[Tensor, "tokens width"]) -> Comparison:
        """Loss, and divergence from the clean output, with the kept tokens of `site` replaced by `value`."""
        losses, divergences = [], []
        # Row by row: log-probabilities of a whole batch would be several copies of [rows, context, d_vocab].
        for clean, logits, ids, scored in zip(
            self.logits, self.substituted(site, value), self.ids, self.scored, strict=True
        ):
            ours = logits[:-1][scored].float().log_softmax(-1)
            theirs = clean[:-1][scored].float().log_softmax(-1)
            losses.append(-ours.gather(1, ids[1:][scored][:, None])[:, 0])
            divergences.append((theirs.exp() * (theirs - ours)).sum(-1))
        return Comparison(torch.cat(losses), torch.cat(divergences))

    def substituted(
        self, site: Site, value: Float[Tensor, "tokens width"] | Float[Tensor, "width"]
    ) -> Float[Tensor, "rows context d_vocab"]:
        """Logits with `value` at the kept positions of `site`; excluded positions keep their own activation."""

        def replace(x: Float[Tensor, "rows context width"]) -> Float[Tensor, "rows context width"]:
            x = x.clone()
            x[self.keep] = value.to(x)
            return x

        with self.model.intervene(Intervention(site, replace)):
            return self.model.logits(self.ids)

    def _recorder(self, site: Site):
        def record(x: Float[Tensor, "rows context width"]) -> Float[Tensor, "rows context width"]:
            self.x[site] = x.detach().clone()
            return x

        return record


def _loss(
    logits: Float[Tensor, "context d_vocab"], ids: Int[Tensor, "context"], scored: Bool[Tensor, "context-1"]
) -> Float[Tensor, "predictions"]:
    """Cross-entropy of one row's scored positions, in fp32."""
    return torch.nn.functional.cross_entropy(logits[:-1][scored].float(), ids[1:][scored], reduction="none")
