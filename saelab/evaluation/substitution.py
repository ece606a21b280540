"""What one reconstruction does in the place of the activations it stands for: the sums behind fidelity's numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.batch import CleanBatch, Comparison, Encoded
from saelab.evaluation.bootstrap import Numbers
from saelab.evaluation.found import Found, part, under
from saelab.evaluation.sums import DocumentSums, RunningMean, reconstruction_terms
from saelab.models import Site

_COLUMNS = (
    "tokens", "residual", "scatter", "hat_squares", "dot", "cosine", "fired",
    "predictions", "ce_clean", "ce_sae", "ce_zero", "ce_mean", "kl",
)  # fmt: skip


class Substitution:
    """Sums of one way of encoding, batch by batch.

    Args:
        sites: where the reconstruction belongs.
        ablation: activation that stands for "no information" there, `[d_out]`, from the first tokens.
    """

    def __init__(self, sites: tuple[Site, ...], ablation: Float[Tensor, "d_out"]) -> None:
        self.sites, self.ablation = sites, ablation
        self.mean = RunningMean(len(ablation))
        self._sums = DocumentSums(_COLUMNS)

    def measure(self, batch: CleanBatch, encoded: Encoded, output: Comparison) -> Found:
        """What one batch comes to.

        Args:
            output: what the reconstruction does to the model's output there.
        """
        target, codes, x_hat = encoded
        terms = reconstruction_terms(target, x_hat, self.ablation)
        kept = self._sums.of(batch.kept_documents, {**terms, "fired": codes.positive().counts})
        at_scored = {
            "predictions": torch.ones_like(batch.clean_loss),
            "ce_clean": batch.clean_loss,
            "ce_sae": output.loss,
            "ce_zero": batch.ablated_loss(self.sites, "zero", torch.zeros_like(self.ablation)),
            "ce_mean": batch.ablated_loss(self.sites, "mean", self.ablation),
            "kl": output.kl,
        }
        scored = self._sums.of(batch.scored_documents, at_scored)
        return {**under("mean", self.mean.of(target)), **under("kept", kept), **under("scored", scored)}

    def take(self, found: Found) -> None:
        """Add what `measure` made."""
        self.mean.take(part(found, "mean"))
        self._sums.take(part(found, "kept"))
        self._sums.take(part(found, "scored"))

    @property
    def sums(self) -> DocumentSums:
        """All sums so far, the scatter moved from the ablation mean to the mean of the tokens themselves."""
        off_centre = float((self.mean.mean - self.ablation.cpu()).square().sum()) if self.mean.n else 0.0
        sums = self._sums.by_document()
        return self._sums.replaced("scatter", sums["scatter"] - sums["tokens"] * off_centre)


def numbers(sums: Mapping[str, Tensor]) -> Numbers:
    """From column sums (of all documents, or of each bootstrap sample) to the numbers."""
    n = sums["tokens"]
    fvu = _ratio(sums["residual"], sums["scatter"])
    return {
        **output_numbers(sums),
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "bias": _ratio(sums["hat_squares"], sums["dot"]),
        "cosine": sums["cosine"] / n,
        "l0": sums["fired"] / n,
    }


def output_numbers(sums: Mapping[str, Tensor]) -> Numbers:
    """Those at the model's output: they rest on losses and divergences alone."""
    columns = ("ce_clean", "ce_sae", "ce_zero", "ce_mean", "kl")
    clean, sae, zero, mean, kl = (sums[name] / sums["predictions"] for name in columns)
    return {
        "ce_clean": clean,
        "ce_sae": sae,
        "ce_zero": zero,
        "ce_mean": mean,
        "delta_ce": sae - clean,
        "loss_recovered_zero": _ratio(zero - sae, zero - clean),
        "loss_recovered_mean": _ratio(mean - sae, mean - clean),
        "kl": kl,
    }


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, undefined (NaN) where there is nothing to compare with."""
    return torch.where(below == 0, torch.nan, above / below)
