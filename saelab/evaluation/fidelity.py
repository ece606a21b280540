"""The fidelity suite: how close the reconstruction comes to the activation, and to the model's output in its place.

A gradient dictionary is measured twice: as it is used, and with the gradient in sight as in training, which leaks.
Source: METHODS §1 ("Inference") and §4. Definitions of every number, and of the positions it counts: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Collection

from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.leaking import was_selected_by_gradient
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.bootstrap import LEVEL, intervals
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import FidelityMetrics, FidelityReport, Interval, Intervals, Leaking, LeakingMetrics
from saelab.evaluation.substitution import Substitution
from saelab.evaluation.sums import FiringCounts


class Fidelity:
    """Fidelity of one dictionary, batch by batch.

    Args:
        mean: activation that stands for "no information" where the dictionary writes, `[d_out]`, from the first tokens.
    """

    needs_output = True

    def __init__(self, subject: Subject, mean: Float[Tensor, "d_out"], resamples: int, seed: int) -> None:
        self.subject, self.resamples, self.seed = subject, resamples, seed
        d_sae = subject.dictionary.d_sae
        self.firing = FiringCounts(d_sae)
        self.substitution = Substitution(subject.writes, mean, d_sae)
        leaks = was_selected_by_gradient(subject.dictionary.config)
        self.leaking = Substitution(subject.writes, mean, d_sae) if leaks else None
        self.tokens_together = 0
        self.splice_error: float | None = None

    def see(self, batch: CleanBatch) -> None:
        """Take in one batch."""
        encoded = batch.encoded(self.subject)
        self.firing.add(encoded.codes)
        self.substitution.see(batch, encoded)
        if self.leaking is not None:
            self.leaking.see(batch, batch.encoded_with_gradient(self.subject))
            self.tokens_together = max(self.tokens_together, encoded.codes.rows)
        if self.splice_error is None and batch.scored.any():
            spliced = batch.loss_with(self.subject.writes, encoded.x_hat + (encoded.target - encoded.x_hat))
            self.splice_error = float((spliced - batch.clean_loss).abs().max())

    def report(self, about: Provenance) -> FidelityReport:
        """All numbers of the text seen, with their intervals."""
        values = _values(self.substitution)
        return FidelityReport(
            about=about,
            metrics=FidelityMetrics(
                **values,
                l0_over_k=None if about.k is None else values["l0"] / about.k,
                splice_error=self.splice_error,
                dead=self.firing.dead,
                dead_fraction=self.firing.dead / self.firing.d_sae,
            ),
            intervals=self._intervals(self.substitution, values),
            leaking=None if self.leaking is None else self._leaking(self.leaking),
        )

    def _leaking(self, substitution: Substitution) -> Leaking:
        values = _values(substitution)
        kept = {name: values[name] for name in LeakingMetrics.model_fields}
        return Leaking(
            tokens_together=self.tokens_together,
            metrics=LeakingMetrics(**kept),
            intervals=self._intervals(substitution, kept),
        )

    def _intervals(self, substitution: Substitution, names: Collection[str]) -> Intervals:
        bounds = intervals(substitution.sums, substitution.numbers, self.resamples, self.seed)
        of = {name: Interval(low=low, high=high) for name, (low, high) in bounds.items() if name in names}
        return Intervals(level=LEVEL, resamples=self.resamples, of=of)


def _values(substitution: Substitution) -> dict[str, float]:
    return {name: float(value) for name, value in substitution.numbers(substitution.sums.total()).items()}
