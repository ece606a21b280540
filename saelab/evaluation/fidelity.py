"""The fidelity suite: how close the reconstruction comes to the activation, and to the model's output in its place.

A gradient dictionary is measured twice: as it is used, and with the gradient in sight as in training, which leaks.
Source: METHODS §1 ("Inference") and §4. Definitions of every number, and of the positions it counts: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jaxtyping import Float
from torch import Tensor

from saelab.corpora.microworld.labels import LABELS
from saelab.dictionaries.leaking import was_selected_by_gradient
from saelab.evaluation.batch import CleanBatch, Comparison, Subject
from saelab.evaluation.bootstrap import LEVEL, Numbers, intervals
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import FidelityMetrics, FidelityReport, Interval, Intervals, Leaking, LeakingMetrics
from saelab.evaluation.slices import ByLabel, ByPosition
from saelab.evaluation.substitution import Substitution, numbers
from saelab.evaluation.sums import DocumentSums, FiringCounts


class Fidelity:
    """Fidelity of one dictionary, batch by batch.

    Args:
        mean: activation that stands for "no information" where the dictionary writes, `[d_out]`, from the first tokens.
    """

    needs_output = True

    def __init__(self, subject: Subject, mean: Float[Tensor, "d_out"], resamples: int, seed: int) -> None:
        self.subject, self.resamples, self.seed = subject, resamples, seed
        self.firing = FiringCounts(subject.dictionary.d_sae)
        self.substitution = Substitution(subject.writes, mean)
        leaks = was_selected_by_gradient(subject.dictionary.config)
        self.leaking = Substitution(subject.writes, mean) if leaks else None
        self.tokens_together = 0
        self.splice_error: float | None = None
        self.by_position: ByPosition | None = None
        self.by_label: ByLabel | None = None

    def see(self, batch: CleanBatch) -> None:
        """Take in one batch."""
        encoded = batch.encoded(self.subject)
        self.firing.add(encoded.codes)
        output = self.substitution.see(batch, encoded)
        self._see_slices(batch, output)
        if self.leaking is not None:
            self.leaking.see(batch, batch.encoded_with_gradient(self.subject))
            self.tokens_together = max(self.tokens_together, encoded.codes.rows)
        if self.splice_error is None and batch.scored.any():
            spliced = batch.loss_with(self.subject.writes, encoded.x_hat + (encoded.target - encoded.x_hat))
            self.splice_error = float((spliced - batch.clean_loss).abs().max())

    def _see_slices(self, batch: CleanBatch, output: Comparison) -> None:
        if self.by_position is None:
            self.by_position = ByPosition(batch.ids.shape[1])
        self.by_position.see(batch, output)
        if batch.labels is not None:
            if self.by_label is None:
                self.by_label = ByLabel(tuple(LABELS))
            self.by_label.see(batch, output, batch.labels)

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
            by_position=None if self.by_position is None else self.by_position.report(self.resamples, self.seed),
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
