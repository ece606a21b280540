"""Detectors of labels: fitted on some tokens, judged on others, counted document by document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.evaluation.bootstrap import Numbers
from saelab.evaluation.labels.latents import BestLatents
from saelab.evaluation.labels.probes import Probe, auroc, best_thresholds, columns, detection, sparse_probe
from saelab.evaluation.labels.report import Judged
from saelab.evaluation.sums import DocumentSums
from saelab.kernels.codes import SparseCodes


class Detector(NamedTuple):
    """Detections on the tokens that are judged on, and what stands behind them."""

    on: Bool[Tensor, "judge labels"]
    scores: Float[Tensor, "judge labels"]


def alone(codes: SparseCodes, best: BestLatents) -> Detector:
    """The best latent of each label, above its threshold."""
    scores = columns(codes, best.latent)
    return Detector(scores > best.threshold, scores)


def thresholded(probe: Probe, labels: Bool[Tensor, "fit labels"]) -> Detector:
    """A probe that detects above the threshold that was best where it was fitted."""
    return Detector(probe.held_out > best_thresholds(probe.fitted, labels), probe.held_out)


def probe_of(
    fit: SparseCodes, judge: SparseCodes, labels: Bool[Tensor, "fit labels"], latents: Int[Tensor, "labels k"]
) -> Probe:
    """Each label read off its own k latents."""
    scores = [
        sparse_probe(columns(fit, of_label), label, columns(judge, of_label))
        for of_label, label in zip(latents, labels.T, strict=True)
    ]
    fitted, held_out = (torch.stack(parts, dim=1) for parts in zip(*scores, strict=True))
    return Probe(fitted, held_out)


def judged(detector: Detector, truth: Bool[Tensor, "judge labels"]) -> list[Judged]:
    """What is said of a detector, label by label."""
    found, areas = detection(detector.on, truth), auroc(detector.scores, truth)
    rows = zip(*(values.tolist() for values in (*found, areas)), strict=True)
    return [Judged(f1=f1, precision=precision, recall=recall, auroc=area) for f1, precision, recall, area in rows]


class Counts:
    """Counts of some marks of tokens, for each label and document, and the mean over labels of ratios of them.

    Args:
        marks: by name; which tokens carry it for each label.
    """

    def __init__(self, documents: Int[Tensor, "tokens"], marks: Mapping[str, Bool[Tensor, "tokens labels"]]) -> None:
        self.names, self.n = tuple(marks), next(iter(marks.values())).shape[1]
        self.sums = DocumentSums([f"{name} {i}" for name in self.names for i in range(self.n)])
        self.sums.take(self.sums.of_rows(documents, torch.cat(list(marks.values()), dim=1)))

    def by_document(self) -> dict[str, Tensor]:
        """`document` (numbers, rising), and for each mark its counts, `[documents, labels]` int32."""
        parts = self.sums.table().int().split(self.n, dim=1)
        return {"document": self.sums.documents, **dict(zip(self.names, parts, strict=True))}

    def mean_f1(self, total: Mapping[str, Tensor], name: str) -> Tensor:
        """Mean over labels of 2 hits / (on + positive); a label that a sample lacks altogether is left out of it."""
        hits, on, positive = (self._of(total, part) for part in (f"{name}.hits", f"{name}.on", "positive"))
        return (2 * hits / (on + positive)).nanmean(0)

    def mean_share(self, total: Mapping[str, Tensor], part: str, whole: str) -> Tensor:
        """Mean over labels of part / whole; labels with an empty whole are left out."""
        return (self._of(total, part) / self._of(total, whole)).nanmean(0)

    def _of(self, total: Mapping[str, Tensor], name: str) -> Float[Tensor, "labels *samples"]:
        return torch.stack([total[f"{name} {i}"] for i in range(self.n)])


def interval_numbers(counts: Counts, detectors: Mapping[str, str], total: Mapping[str, Tensor]) -> Numbers:
    """The means that have intervals.

    Args:
        detectors: detector → what its mean F1 is called.
    """
    numbers = {name: counts.mean_f1(total, detector) for detector, name in detectors.items()}
    return numbers | {"absorption": counts.mean_share(total, "absorbed", "detected")}
