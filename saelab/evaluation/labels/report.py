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


class Absorber(ReportPart):
    """A latent that stands in for a label's own."""

    latent: int
    tokens: int = number("Absorbed tokens", "Tokens on which it makes up most of the probe's projection.", "tokens")
    cosine: Number = number("Cosine with the probe", "Of its decoder direction with the dense probe's.", "")
    precision: Number = number(
        "Precision", "Share of its firings that carry the label, where detectors are fitted.", ""
    )


class Absorption(ReportPart):
    """Where a label's latents are silent and a specific latent does their work; docs/metrics.md has the formula."""

    main: tuple[int, ...]
    """The label's latents: those of the probe of `splits` latents that fire more often with the label than without."""
    tokens: int = number("Detected tokens", "Tokens with the label that the dense probe detects.", "tokens")
    main_recall: Number = number("Recall of the main latents", "Share of these on which one of them fires.", "")
    rate: Number = number(
        "Absorption rate", "Share of these on which none fires, and a specific latent makes up the projection.", ""
    )
    absorbers: list[Absorber]
    """The latents that most often do, up to three."""


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
    """Probes of one latent, of two, …, of ten, by the same pursuit."""
    splits: int = number(
        "Latents in it", "Number of latents from which on one more adds 0.03 of F1 or less to the probe.", "latents"
    )
    parts_95: int | None = number(
        "Latents for 95 %",
        "Latents of the smallest probe with 95 % of the F1 of the largest one tried.",
        "latents",
        None,
    )
    dense: Judged
    """A probe that sees the whole activation: the ceiling."""
    absorption: Absorption | None = None
    """Null for a transcoder, whose decoder does not write where the probe reads, and for a label without a main latent
    or that the dense probe never detects."""


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
    parts_95: Number = number(
        "Latents for 95 %",
        "Latents of the smallest probe with 95 % of the F1 of the largest one tried; mean.",
        "latents",
        None,
    )
    main_recall: Number = number(
        "Recall of the main latents", "Detected tokens of a label on which one of its latents fires; mean.", "", None
    )
    absorption: Number = number(
        "Absorption rate", "Detected tokens on which a specific latent stands in for the label's; mean.", "", None
    )


class LabelsReport(Report):
    """How well latents tell what is known of each token."""

    suite: Literal["labels"] = "labels"
    metrics: LabelsMetrics
    intervals: Intervals
    """Uncertainty of the means: over the documents judged on, with latents and probes held as they are."""
    by_label: list[LabelScore]
    """Every label that was judged."""
    documents_sha256: str | None = None
    """Checksum of the file of counts beside it, document by document; null where they were not kept."""
