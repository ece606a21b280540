"""What the labels suite reports; formulas in docs/metrics.md."""

from __future__ import annotations

from typing import Literal

from saelab.evaluation.provenance import ReportPart
from saelab.evaluation.report import Intervals, Number, Report, number


class Judged(ReportPart):
    """A detector of one label on documents that it was not fitted on."""

    f1: Number = number("F1", "2 TP / (detected + positive).", "")
    precision: Number = number("Precision", "TP / detected; null where nothing was detected.", "")
    recall: Number = number("Recall", "TP / positive.", "")
    auroc: Number = number("AUROC", "Share of (positive, negative) pairs in which the positive scores higher.", "")


class ProbeScore(Judged):
    """A probe that sees some latents."""

    latents: tuple[int, ...]
    """Those it sees, in the order in which they were chosen."""


class LabelScore(ReportPart):
    """One label, and who detects it how well."""

    label: str
    """Name of the label."""
    positives: int = number("Positive tokens", "Tokens with the label among those that are judged on.", "tokens")
    latent: int = number("Best latent", "The latent that tells the label best alone.", "")
    threshold: Number = number("Threshold", "The latent counts as detecting above this activation.", "")
    best: Judged
    """That latent alone."""
    probes: list[ProbeScore]
    """Probes of one latent, of two, …, by the same pursuit."""
    splits: int = number(
        "Latents in it", "Number of latents from which on one more adds 0.03 of F1 or less to the probe.", "latents"
    )
    dense: Judged
    """A probe that sees the whole activation: the ceiling."""


class LabelsMetrics(ReportPart):
    """Means over labels; the same labels for every dictionary on the same text."""

    labels: int = number("Labels judged", "Labels with enough tokens of both kinds in both halves.", "labels")
    best_f1: Number = number("F1 of the best latent", "One latent alone, mean over labels.", "")
    best_auroc: Number = number("AUROC of the best latent", "One latent alone, mean over labels.", "")
    probe_f1_1: Number = number("F1 of 1-latent probes", "Mean over labels.", "")
    probe_f1_2: Number = number("F1 of 2-latent probes", "Mean over labels.", "")
    probe_f1_5: Number = number("F1 of 5-latent probes", "Mean over labels.", "")
    dense_f1: Number = number("F1 of the dense probe", "The whole activation: the ceiling. Mean over labels.", "")
    dense_auroc: Number = number("AUROC of the dense probe", "The ceiling. Mean over labels.", "")
    splits: Number = number("Latents in a label", "Latents after which one more adds 0.03 of F1 or less; mean.", "")


class LabelsReport(Report):
    """How well latents tell what is known of each token."""

    suite: Literal["labels"] = "labels"
    metrics: LabelsMetrics
    intervals: Intervals
    """Uncertainty of the mean F1 values: over the documents judged on, with latents and probes held as they are."""
    by_label: list[LabelScore]
    """Every label that was judged."""
