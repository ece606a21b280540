"""The fidelity suite: how close the reconstruction comes to the activation, and to the model's output in its place.

A gradient dictionary is measured twice: as it is used, and with the gradient in sight as in training, which leaks.
Source: METHODS §1 ("Inference") and §4. Definitions of every number, and of the positions it counts: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.leaking import was_selected_by_gradient
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.bootstrap import LEVEL, Numbers, intervals
from saelab.evaluation.found import Found, part, under
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import FidelityMetrics, FidelityReport, Interval, Intervals, Leaking, LeakingMetrics
from saelab.evaluation.slices import ByLabel, ByPosition
from saelab.evaluation.substitution import Substitution, numbers
from saelab.evaluation.sums import DocumentSums, FiringCounts


class Fidelity:
    """Fidelity of one dictionary, batch by batch.

    Args:
        mean: activation that stands for "no information" where the dictionary writes, `[d_out]`, from the first tokens.
        context: positions of a row.
        labels: names of what is known of every token; none of text of which nothing is.
    """

    needs_output: ClassVar = True
    everywhere: ClassVar = False

    def __init__(
        self,
        subject: Subject,
        mean: Float[Tensor, "d_out"],
        context: int,
        labels: Sequence[str],
        resamples: int,
        seed: int,
    ) -> None:
        self.subject, self.resamples, self.seed = subject, resamples, seed
        self.firing = FiringCounts(subject.dictionary.d_sae)
        self.substitution = Substitution(subject.writes, mean)
        leaks = was_selected_by_gradient(subject.dictionary.config)
        self.leaking = Substitution(subject.writes, mean) if leaks else None
        self.tokens_together = 0
        self.splice_error: float | None = None
        self.by_position = ByPosition(context)
        self.by_label = ByLabel(labels) if labels else None
        self._spliced = False

    def measure(self, batch: CleanBatch) -> dict[str, Tensor]:
        """What one batch comes to; with the splice error of the first one that has predictions."""
        encoded = batch.encoded(self.subject)
        output = batch.compare(self.subject.writes, encoded.x_hat)
        found = {
            **under("firing", self.firing.of(encoded.codes)),
            **under("substitution", self.substitution.measure(batch, encoded, output)),
            **under("position", self.by_position.measure(batch, output)),
        }
        if self.by_label is not None and batch.labels is not None:
            found |= under("label", self.by_label.measure(batch, output, batch.labels))
        if self.leaking is not None:
            leaking = batch.encoded_with_gradient(self.subject)
            told = batch.compare(self.subject.writes, leaking.x_hat)
            found |= under("leaking", self.leaking.measure(batch, leaking, told))
            found["together"] = torch.tensor(encoded.codes.rows)
        if not self._spliced and batch.scored.any():
            self._spliced = True
            spliced = batch.loss_with(self.subject.writes, encoded.x_hat + (encoded.target - encoded.x_hat))
            found["splice error"] = (spliced - batch.clean_loss).abs().max()
        return found

    def take(self, found: Found) -> None:
        """Add what `measure` made of the next batch."""
        self.firing.take(part(found, "firing"))
        self.substitution.take(part(found, "substitution"))
        self.by_position.take(part(found, "position"))
        if self.by_label is not None:
            self.by_label.take(part(found, "label"))
        if self.leaking is not None:
            self.leaking.take(part(found, "leaking"))
            self.tokens_together = max(self.tokens_together, int(found["together"]))
        if self.splice_error is None and "splice error" in found:
            self.splice_error = float(found["splice error"])

    def documents(self) -> dict[str, Tensor]:
        """The sums behind the numbers, document by document: `substitution.numbers` of their totals."""
        return self.substitution.sums.by_document()

    def report(self, about: Provenance) -> FidelityReport:
        """All numbers of the text seen, with their intervals."""
        sums = self.substitution.sums
        values = self._values(sums)
        return FidelityReport(
            about=about,
            metrics=FidelityMetrics(
                **values,
                l0_over_k=None if about.k is None else values["l0"] / about.k,
                splice_error=self.splice_error,
                dead=self.firing.dead,
                dead_fraction=self.firing.dead / self.firing.d_sae,
            ),
            intervals=self._intervals(sums, values),
            leaking=None if self.leaking is None else self._leaking(self.leaking.sums),
            by_position=self.by_position.report(self.resamples, self.seed),
            by_label=None if self.by_label is None else self.by_label.report(self.resamples, self.seed),
        )

    def _leaking(self, sums: DocumentSums) -> Leaking:
        values = self._values(sums)
        kept = {name: values[name] for name in LeakingMetrics.model_fields}
        return Leaking(
            tokens_together=self.tokens_together,
            metrics=LeakingMetrics(**kept),
            intervals=self._intervals(sums, kept),
        )

    def _numbers(self, sums: Mapping[str, Tensor]) -> Numbers:
        of_sums = numbers(sums)
        return {**of_sums, "density": of_sums["l0"] / self.firing.d_sae}

    def _values(self, sums: DocumentSums) -> dict[str, float]:
        return {name: float(value) for name, value in self._numbers(sums.total()).items()}

    def _intervals(self, sums: DocumentSums, names: Collection[str]) -> Intervals:
        bounds = intervals(sums, self._numbers, self.resamples, self.seed)
        of = {name: Interval(low=low, high=high) for name, (low, high) in bounds.items() if name in names}
        return Intervals(level=LEVEL, resamples=self.resamples, of=of)
