"""The labels suite: what one dictionary's latents tell of each label, alone and in small groups."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.bootstrap import intervals
from saelab.evaluation.labels.latents import BestLatents, best_latents
from saelab.evaluation.labels.material import LabelledTokens
from saelab.evaluation.labels.probes import (
    Probe,
    auroc,
    best_thresholds,
    columns,
    detection,
    matching_pursuit,
    sparse_probe,
)
from saelab.evaluation.labels.report import Judged, LabelScore, LabelsMetrics, LabelsReport, ProbeScore
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import Interval, Intervals
from saelab.evaluation.sums import DocumentSums
from saelab.kernels.codes import SparseCodes, concatenate

MOST = 5  # latents in a probe
WORTH = 0.03  # of F1: what one latent more must add to count as a part of the label (arXiv 2409.14507, section 4)


class _Detector(NamedTuple):
    """Detections on the tokens that are judged on, and what stands behind them."""

    on: Bool[Tensor, "judge labels"]
    scores: Float[Tensor, "judge labels"]


class Labels:
    """Codes of one dictionary on labelled tokens; needs activations only, not the model's output."""

    needs_output = False

    def __init__(self, subject: Subject, tokens: LabelledTokens, resamples: int, seed: int) -> None:
        self.subject, self.tokens = subject, tokens
        self.resamples, self.seed = resamples, seed
        self._codes: list[SparseCodes] = []

    def see(self, batch: CleanBatch) -> None:
        """Take in one batch."""
        self.tokens.see(batch, self.subject.site)
        self._codes.append(batch.encoded(self.subject).codes.positive().to("cpu"))

    def report(self, about: Provenance) -> LabelsReport:
        """Everything fitted on one half of the documents and judged on the other."""
        tokens, codes = self.tokens, concatenate(self._codes)
        fit, judge = codes.rows_where(tokens.fit), codes.rows_where(~tokens.fit)
        labels, truth = tokens.labels[tokens.fit], tokens.labels[~tokens.fit]
        best = best_latents(fit, labels)
        order = matching_pursuit(fit, labels, MOST)
        detectors = {"best": _alone(judge, best)}
        for k in range(1, order.shape[1] + 1):
            detectors[f"probe_{k}"] = _thresholded(_probe(fit, judge, labels, order[:, :k]), labels)
        detectors["dense"] = _thresholded(tokens.dense(self.subject.site), labels)
        judged = {name: _judged(detector, truth) for name, detector in detectors.items()}
        by_label = [self._of_label(i, truth, best, order, judged) for i in range(len(tokens.judged))]
        return LabelsReport(
            about=about,
            metrics=_means(by_label),
            intervals=self._intervals(detectors, truth),
            by_label=by_label,
        )

    def _of_label(
        self,
        i: int,
        truth: Bool[Tensor, "judge labels"],
        best: BestLatents,
        order: Int[Tensor, "labels k"],
        judged: dict[str, list[Judged]],
    ) -> LabelScore:
        probes = [
            ProbeScore(**judged[f"probe_{k}"][i].model_dump(), latents=tuple(order[i, :k].tolist()))
            for k in range(1, order.shape[1] + 1)
        ]
        return LabelScore(
            label=self.tokens.names[self.tokens.judged[i]],
            positives=int(truth[:, i].sum()),
            latent=int(best.latent[i]),
            threshold=float(best.threshold[i]),
            best=judged["best"][i],
            probes=probes,
            splits=parts([probe.f1 or 0.0 for probe in probes]),
            dense=judged["dense"][i],
        )

    def _intervals(self, detectors: dict[str, _Detector], truth: Bool[Tensor, "judge labels"]) -> Intervals:
        names = {"best": "best_f1", "probe_1": "probe_f1_1", "probe_2": "probe_f1_2", "probe_5": "probe_f1_5"}
        names["dense"] = "dense_f1"
        of = {name: detectors[detector].on for detector, name in names.items() if detector in detectors}
        n, documents = truth.shape[1], self.tokens.documents[~self.tokens.fit]
        sums = DocumentSums(
            [f"{part} {i}" for part in ("positive", *of, *(f"hits {name}" for name in of)) for i in range(n)]
        )
        values = {f"positive {i}": truth[:, i] for i in range(n)}
        for name, on in of.items():
            values |= {f"{name} {i}": on[:, i] for i in range(n)}
            values |= {f"hits {name} {i}": (on & truth)[:, i] for i in range(n)}
        sums.add(documents, values)

        def numbers(total):
            def f1(name: str, i: int) -> Tensor:
                return 2 * total[f"hits {name} {i}"] / (total[f"{name} {i}"] + total[f"positive {i}"])

            # A label that a sample lacks altogether is left out of that sample's mean.
            return {name: torch.stack([f1(name, i) for i in range(n)]).nanmean(0) for name in of}

        found = intervals(sums, numbers, self.resamples, self.seed)
        return Intervals(
            resamples=self.resamples, of={name: Interval(low=low, high=high) for name, (low, high) in found.items()}
        )


def parts(f1: list[float]) -> int:
    """Number of latents after which one more adds `WORTH` or less to the F1 of a probe (f1[0]: of one latent)."""
    return next((k for k in range(1, len(f1)) if f1[k] - f1[k - 1] <= WORTH), len(f1))


def _alone(codes: SparseCodes, best: BestLatents) -> _Detector:
    scores = columns(codes, best.latent)
    return _Detector(scores > best.threshold, scores)


def _thresholded(probe: Probe, labels: Bool[Tensor, "fit labels"]) -> _Detector:
    """A probe that detects above the threshold that was best where it was fitted."""
    return _Detector(probe.held_out > best_thresholds(probe.fitted, labels), probe.held_out)


def _probe(
    fit: SparseCodes, judge: SparseCodes, labels: Bool[Tensor, "fit labels"], latents: Int[Tensor, "labels k"]
) -> Probe:
    """Each label read off its own k latents."""
    scores = [
        sparse_probe(columns(fit, of_label), label, columns(judge, of_label))
        for of_label, label in zip(latents, labels.T, strict=True)
    ]
    fitted, held_out = (torch.stack(parts, dim=1) for parts in zip(*scores, strict=True))
    return Probe(fitted, held_out)


def _judged(detector: _Detector, truth: Bool[Tensor, "judge labels"]) -> list[Judged]:
    found, areas = detection(detector.on, truth), auroc(detector.scores, truth)
    rows = zip(*(values.tolist() for values in (*found, areas)), strict=True)
    return [Judged(f1=f1, precision=precision, recall=recall, auroc=area) for f1, precision, recall, area in rows]


def _means(labels: list[LabelScore]) -> LabelsMetrics:
    def mean(values: list[float | None]) -> float:
        return sum(value or 0.0 for value in values) / len(values)

    def probe(k: int) -> float:
        return mean([label.probes[min(k, len(label.probes)) - 1].f1 for label in labels])

    return LabelsMetrics(
        labels=len(labels),
        best_f1=mean([label.best.f1 for label in labels]),
        best_auroc=mean([label.best.auroc for label in labels]),
        probe_f1_1=probe(1),
        probe_f1_2=probe(2),
        probe_f1_5=probe(5),
        dense_f1=mean([label.dense.f1 for label in labels]),
        dense_auroc=mean([label.dense.auroc for label in labels]),
        splits=mean([float(label.splits) for label in labels]),
    )
