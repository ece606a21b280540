"""One batch of held-out text, run through the untouched model once and shared by all dictionaries and suites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.dictionaries import leaking
from saelab.dictionaries.dictionary import Dictionary
from saelab.kernels.codes import SparseCodes
from saelab.models import Intervention, LanguageModel, Site
from saelab.models.taps import Edit
from saelab.training.origin import written_sites

LabelRows = Callable[[TokenRows], Bool[Tensor, "rows context labels"]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A dictionary under evaluation, the name it goes by, and where in the model it reads."""

    name: str
    dictionary: Dictionary
    site: Site

    @property
    def writes(self) -> tuple[Site, ...]:
        """Where its reconstruction belongs: the site itself, or a transcoder's targets."""
        return written_sites(self.dictionary.config) if self.dictionary.config.targets else (self.site,)


class Encoded(NamedTuple):
    """What a dictionary makes of the kept tokens of a batch."""

    target: Float[Tensor, "tokens d_out"]
    """Clean activations where the dictionary writes; of several sites, one behind the other."""
    codes: SparseCodes
    x_hat: Float[Tensor, "tokens d_out"]


class Comparison(NamedTuple):
    """What replacing an activation does to the model's output at each scored position."""

    loss: Float[Tensor, "predictions"]
    kl: Float[Tensor, "predictions"]


class CleanBatch:
    """The clean run of some rows; everything that several readers ask for is computed once.

    Attributes:
        rows: as they were given.
        ids, documents, keep: `[rows, context]`; `keep` is False at positions that the token policy excludes.
        scored: `[rows, context - 1]`, the positions whose prediction counts: kept, with a next token (no padding) in
            the row.
        x: activations at each site, `[rows, context, width]`.
    """

    def __init__(
        self,
        model: LanguageModel,
        rows: TokenRows,
        sites: Sequence[Site],
        with_output: bool,
        label_rows: LabelRows | None = None,
    ) -> None:
        self.model = model
        self.rows = rows
        self._label_rows = label_rows
        self.ids: Int[Tensor, "rows context"] = rows.ids.to(model.device, torch.int64)
        self.documents: Int[Tensor, "rows context"] = rows.documents
        self.keep: Bool[Tensor, "rows context"] = rows.keep.to(model.device)
        self._real: Bool[Tensor, "rows context"] = rows.real.to(model.device)
        self.scored: Bool[Tensor, "rows context-1"] = self.keep[:, :-1] & self._real[:, 1:]
        self.x: dict[Site, Float[Tensor, "rows context width"]] = {}
        self._clean: list[Float[Tensor, "scored d_vocab"]] = []
        if with_output:
            with model.intervene(*(Intervention(site, self._recorder(site)) for site in sites)):
                self._clean = list(self._log_probabilities(model.logits(self.ids)))
        else:
            self.x = model.activations(self.ids, sites)
        self._encoded: dict[Subject, Encoded] = {}
        self._ablated: dict[tuple[tuple[Site, ...], str], Float[Tensor, "predictions"]] = {}
        self._gradients: dict[Site, Float[Tensor, "tokens width"]] = {}

    @property
    def kept_documents(self) -> Int[Tensor, "tokens"]:
        """Document of each kept token."""
        return self.documents[self.keep.cpu()]

    @property
    def scored_documents(self) -> Int[Tensor, "predictions"]:
        """Document of each scored position."""
        return self.documents[:, :-1][self.scored.cpu()]

    @cached_property
    def labels(self) -> Bool[Tensor, "rows context labels"] | None:
        """What is known of every token, on the CPU; None for text of which nothing is."""
        return None if self._label_rows is None else self._label_rows(self.rows)

    @cached_property
    def clean_loss(self) -> Float[Tensor, "predictions"]:
        """Cross-entropy of the untouched model at each scored position; only where the batch was made with output."""
        return self._loss(self._clean)

    def encoded(self, subject: Subject) -> Encoded:
        """Codes and reconstruction of the kept tokens, for whoever asks first and all who ask later."""
        if subject not in self._encoded:
            codes = subject.dictionary.encode(self._kept(subject.site))
            self._encoded[subject] = self._decoded(subject, codes)
        return self._encoded[subject]

    def encoded_with_gradient(self, subject: Subject) -> Encoded:
        """The same with latents chosen as in training, with the gradient of the loss in sight: it leaks."""
        if subject.site not in self._gradients:
            gradients = self.model.activations_and_gradients(self.ids, [subject.site], real=self._real)[1]
            self._gradients[subject.site] = gradients[subject.site][self.keep].float()
        gradient = self._gradients[subject.site]
        return self._decoded(subject, leaking.encode(subject.dictionary, self._kept(subject.site), gradient))

    def ablated_loss(
        self, sites: tuple[Site, ...], name: str, value: Float[Tensor, "width"]
    ) -> Float[Tensor, "predictions"]:
        """Loss with all kept tokens of `sites` set to one `value`; computed once for each (sites, name)."""
        if (sites, name) not in self._ablated:
            self._ablated[sites, name] = self.loss_with(sites, value)
        return self._ablated[sites, name]

    def loss_with(
        self, sites: Sequence[Site], value: Float[Tensor, "tokens width"] | Float[Tensor, "width"]
    ) -> Float[Tensor, "predictions"]:
        """Loss with the kept tokens of `sites` replaced by `value`."""
        return self._loss(self._log_probabilities(self.substituted(sites, value)))

    def compare(self, sites: Sequence[Site], value: Float[Tensor, "tokens width"]) -> Comparison:
        """Loss, and divergence from the clean output, with the kept tokens of `sites` replaced by `value`."""
        return self.compare_logits(self.substituted(sites, value))

    def compare_logits(self, logits: Float[Tensor, "rows context d_vocab"]) -> Comparison:
        """Loss, and divergence from the clean output, of another run of the same rows."""
        losses, divergences = [], []
        for clean, ours, targets in zip(self._clean, self._log_probabilities(logits), self._targets(), strict=True):
            losses.append(-ours.gather(1, targets[:, None])[:, 0])
            divergences.append((clean.exp() * (clean - ours)).sum(-1))
        return Comparison(torch.cat(losses), torch.cat(divergences))

    def substituted(
        self, sites: Sequence[Site], value: Float[Tensor, "tokens width"] | Float[Tensor, "width"]
    ) -> Float[Tensor, "rows context d_vocab"]:
        """Logits with `value` at the kept positions of `sites`; excluded positions keep their own activation.

        Args:
            value: of several sites one behind the other, all replaced in one pass.
        """
        parts = value.split([self.model.width(site) for site in sites], dim=-1)
        edits = [Intervention(site, self._replacer(part)) for site, part in zip(sites, parts, strict=True)]
        with self.model.intervene(*edits):
            return self.model.logits(self.ids)

    def _kept(self, site: Site) -> Float[Tensor, "tokens width"]:
        return self.x[site][self.keep].float()

    def _decoded(self, subject: Subject, codes: SparseCodes) -> Encoded:
        target = torch.cat([self._kept(site) for site in subject.writes], dim=-1)
        return Encoded(target, codes, subject.dictionary.decode(codes))

    def _replacer(self, value: Float[Tensor, "tokens width"] | Float[Tensor, "width"]) -> Edit:
        def replace(x: Float[Tensor, "rows context width"]) -> Float[Tensor, "rows context width"]:
            x = x.clone()
            x[self.keep] = value.to(x)
            return x

        return replace

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
