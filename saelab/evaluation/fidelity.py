"""The fidelity suite: how close the reconstruction comes to the activation, and to the model's output in its place.

Source: METHODS §4. Definitions of every number, and of the positions it counts: docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.bootstrap import LEVEL, Numbers, intervals
from saelab.evaluation.report import FidelityMetrics, FidelityReport, Interval, Intervals, Provenance
from saelab.evaluation.sums import DocumentSums, FiringCounts, RunningMean, reconstruction_terms

_COLUMNS = (
    "tokens", "residual", "scatter", "hat_squares", "dot", "cosine", "fired",
    "predictions", "ce_clean", "ce_sae", "ce_zero", "ce_mean", "kl",
)  # fmt: skip


class Fidelity:
    """Fidelity of one dictionary, batch by batch.

    Args:
        mean: activation that stands for "no information" at the dictionary's site, `[d_in]`, from the first tokens.
    """

    needs_output = True

    def __init__(self, subject: Subject, mean: Float[Tensor, "d_in"], resamples: int, seed: int) -> None:
        self.subject, self.ablation = subject, mean
        self.resamples, self.seed = resamples, seed
        self.sums = DocumentSums(_COLUMNS)
        self.mean = RunningMean(subject.dictionary.d_in)
        self.firing = FiringCounts(subject.dictionary.d_sae)
        self.splice_error: float | None = None

    def see(self, batch: CleanBatch) -> None:
        """Take in one batch."""
        site = self.subject.site
        x, codes, x_hat = batch.encoded(self.subject)
        self.mean.add(x)
        self.firing.add(codes)
        terms = reconstruction_terms(x, x_hat, self.ablation)
        self.sums.add(batch.kept_documents, {**terms, "fired": codes.positive().counts})

        output = batch.compare(site, x_hat)
        at_scored = {
            "predictions": torch.ones_like(batch.clean_loss),
            "ce_clean": batch.clean_loss,
            "ce_sae": output.loss,
            "ce_zero": batch.ablated_loss(site, "zero", torch.zeros_like(self.ablation)),
            "ce_mean": batch.ablated_loss(site, "mean", self.ablation),
            "kl": output.kl,
        }
        self.sums.add(batch.scored_documents, at_scored)
        if self.splice_error is None and batch.scored.any():
            spliced = batch.loss_with(site, x_hat + (x - x_hat))
            self.splice_error = float((spliced - batch.clean_loss).abs().max())

    def report(self, about: Provenance) -> FidelityReport:
        """All numbers of the text seen, with their intervals."""
        values = {name: float(value) for name, value in self._numbers(self.sums.total()).items()}
        bounds = intervals(self.sums, self._numbers, self.resamples, self.seed)
        return FidelityReport(
            about=about,
            metrics=FidelityMetrics(
                **values,
                splice_error=self.splice_error,
                dead=self.firing.dead,
                dead_fraction=self.firing.dead / self.firing.d_sae,
            ),
            intervals=Intervals(
                level=LEVEL,
                resamples=self.resamples,
                of={name: Interval(low=low, high=high) for name, (low, high) in bounds.items()},
            ),
        )

    def _numbers(self, sums: Mapping[str, Tensor]) -> Numbers:
        """From column sums (of all documents, or of each bootstrap sample) to the numbers."""
        n, m = sums["tokens"], sums["predictions"]
        clean, sae, zero, mean = (sums[name] / m for name in ("ce_clean", "ce_sae", "ce_zero", "ce_mean"))
        # The scatter was summed around the ablation mean; move it to the mean of the tokens themselves.
        off_centre = float((self.mean.mean - self.ablation.cpu()).square().sum())
        fvu = _ratio(sums["residual"], sums["scatter"] - n * off_centre)
        return {
            "ce_clean": clean,
            "ce_sae": sae,
            "ce_zero": zero,
            "ce_mean": mean,
            "delta_ce": sae - clean,
            "loss_recovered_zero": _ratio(zero - sae, zero - clean),
            "loss_recovered_mean": _ratio(mean - sae, mean - clean),
            "kl": sums["kl"] / m,
            "fvu": fvu,
            "explained_variance": 1 - fvu,
            "bias": _ratio(sums["hat_squares"], sums["dot"]),
            "cosine": sums["cosine"] / n,
            "l0": sums["fired"] / n,
            "density": sums["fired"] / n / self.firing.d_sae,
        }


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, undefined (NaN) where there is nothing to compare with."""
    return torch.where(below == 0, torch.nan, above / below)
