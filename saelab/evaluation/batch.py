"""One batch of held-out text, run through the untouched model once and shared by all dictionaries and suites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from saelab.models.taps import Edit


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
        self._clean: list[Float[Tensor, "scored d_vocab"]] = []
        if with_output:
            with model.intervene(*(Intervention(site, self._recorder(site)) for site in sites)):
                self._clean = list(self._log_probabilities(model.logits(self.ids)))
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

    @cached_property
    def clean_loss(self) -> Float[Tensor, "predictions"]:
        """Cross-entropy of the untouched model at each scored position; only where the batch was made with output."""
        return self._loss(self._clean)

    def encoded(self, subject: Subject) -> Encoded:
        """Codes and reconstruction of the kept tokens, for whoever asks first and all who ask later."""
        if subject not in self._encoded:
            x = self.x[subject.site][self.keep].float()
            codes = subject.dictionary.encode(x)
            self._encoded[subject] = Encoded(x, codes, subject.dictionary.decode(codes))
        return self._encoded[subject]

    def ablated_loss(self, site: Site, name: str, value: Float[Tensor, "width"]) -> Float[Tensor, "predictions"]:
        """Loss with all kept tokens of `site` set to one `value`; computed once for each (site, name)."""
        if (site, name) not in self._ablated:
            self._ablated[site, name] = self.loss_with(site, value)
        return self._ablated[site, name]

    def loss_with(
        self, site: Site, value: Float[Tensor, "tokens width"] | Float[Tensor, "width"]
    ) -> Float[Tensor, "predictions"]:
        """Loss with the kept tokens of `site` replaced by `value`."""
        return self._loss(self._log_probabilities(self.substituted(site, value)))

    def compare(self, site: Site, value: Float[Tensor, "tokens width"]) -> Comparison:
        """Loss, and divergence from the clean output, with the kept tokens of `site` replaced by `value`."""
        losses, divergences = [], []
        changed = self._log_probabilities(self.substituted(site, value))
        for clean, ours, targets in zip(self._clean, changed, self._targets(), strict=True):
            losses.append(-ours.gather(1, targets[:, None])[:, 0])
            divergences.append((clean.exp() * (clean - ours)).sum(-1))
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

    def _recorder(self, site: Site) -> Edit:
        def record(x: Float[Tensor, "rows context width"]) -> Float[Tensor, "rows context width"]:
            self.x[site] = x.detach().clone()
            return x

        return record

    def _log_probabilities(
        self, logits: Float[Tensor, "rows context d_vocab"]
    ) -> Iterator[Float[Tensor, "scored d_vocab"]]:
        """fp32 log-probabilities at the scored positions, a row at a time: copies of all rows would be large."""
        for row, scored in zip(logits, self.scored, strict=True):
            yield row[:-1][scored].float().log_softmax(-1)

    def _targets(self) -> Iterator[Int[Tensor, "scored"]]:
        """The tokens that the scored positions predict, a row at a time."""
        for ids, scored in zip(self.ids, self.scored, strict=True):
            yield ids[1:][scored]

    def _loss(self, rows: Iterable[Float[Tensor, "scored d_vocab"]]) -> Float[Tensor, "predictions"]:
        """Cross-entropy from log-probabilities."""
        pairs = zip(rows, self._targets(), strict=True)
        return torch.cat([-row.gather(1, targets[:, None])[:, 0] for row, targets in pairs])
