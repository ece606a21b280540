"""The labels suite: what one dictionary's latents tell of each label, alone and in small groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.bootstrap import intervals
from saelab.evaluation.found import Found, codes_of, of_codes
from saelab.evaluation.labels.absorption import Ceiling, absorption, main_latents, specificity
from saelab.evaluation.labels.detectors import (
    Counts,
    Detector,
    alone,
    interval_numbers,
    judged,
    probe_of,
    thresholded,
)
from saelab.evaluation.labels.latents import BestLatents, best_latents
from saelab.evaluation.labels.material import LabelledTokens
from saelab.evaluation.labels.probes import matching_pursuit
from saelab.evaluation.labels.report import Absorption, Judged, LabelScore, LabelsMetrics, LabelsReport, ProbeScore
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import Interval, Intervals
from saelab.kernels.codes import SparseCodes, concatenate

MOST = 10  # latents in a probe
SPLITS_MOST = 5  # latents of which `parts` says how many make up a label
WORTH = 0.03  # of F1: what one latent more must add to count as a part of the label (arXiv 2409.14507, section 4)
NEARLY = 0.95  # of the largest probe's F1: what `nearly_all` asks for
_WITH_INTERVAL = {"best": "best_f1", "probe_1": "probe_f1_1", "probe_2": "probe_f1_2", "probe_5": "probe_f1_5",
                  "dense": "dense_f1"}  # fmt: skip


class _Findings(NamedTuple):
    """Everything that was fitted, and how it does."""

    best: BestLatents
    order: Int[Tensor, "labels k"]
    judged: dict[str, list[Judged]]
    splits: list[int]
    absorptions: Sequence[Absorption | None]
    counts: Counts


class Labels:
    """Codes of one dictionary on labelled tokens; needs activations only, not the model's output.

    Args:
        tokens: have taken in the same batches when the report is made.
    """

    needs_output: ClassVar = False
    everywhere: ClassVar = False

    def __init__(self, subject: Subject, tokens: LabelledTokens, resamples: int, seed: int) -> None:
        self.subject, self.tokens = subject, tokens
        self.resamples, self.seed = resamples, seed
        self._codes: list[SparseCodes] = []

    def measure(self, batch: CleanBatch) -> Found:
        """What fires on one batch."""
        return of_codes(batch.encoded(self.subject).codes.positive())

    def take(self, found: Found) -> None:
        """Keep what `measure` made of the next batch."""
        self._codes.append(codes_of(found, self.subject.dictionary.d_sae))

    def report(self, about: Provenance) -> LabelsReport:
        """Everything fitted on one half of the documents and judged on the other."""
        by_label = [self._of_label(i) for i in range(len(self.tokens.judged))]
        return LabelsReport(about=about, metrics=_means(by_label), intervals=self._intervals(), by_label=by_label)

    def documents(self) -> dict[str, Tensor]:
        """Counts of the tokens judged on, `[documents, labels]`: `positive`, and `<detector>.on`, `<detector>.hits`."""
        return self._findings.counts.by_document()

    @cached_property
    def _findings(self) -> _Findings:
        tokens, codes = self.tokens, concatenate(self._codes)
        fit, judge = codes.rows_where(tokens.fit), codes.rows_where(~tokens.fit)
        labels, truth = tokens.labels[tokens.fit], tokens.labels[~tokens.fit]
        best = best_latents(fit, labels)
        order = matching_pursuit(fit, labels, MOST)
        detectors = {"best": alone(judge, best)}
        for k in range(1, order.shape[1] + 1):
            detectors[f"probe_{k}"] = thresholded(probe_of(fit, judge, labels, order[:, :k]), labels)
        detectors["dense"] = thresholded(tokens.dense(self.subject.site).probe, labels)
        of_labels = {name: judged(detector, truth) for name, detector in detectors.items()}
        splits = [parts(_f1(of_labels, i)[:SPLITS_MOST]) for i in range(len(tokens.judged))]
        detected = detectors["dense"].on & truth
        absorptions, absorbed = self._absorption(fit, judge, order, splits, detected)
        of_known = detected & torch.tensor([found is not None for found in absorptions])
        marks = {"positive": truth, **_marks(detectors, truth), "detected": of_known, "absorbed": absorbed}
        counts = Counts(tokens.documents[~tokens.fit], marks)
        return _Findings(best, order, of_labels, splits, absorptions, counts)

    def _absorption(
        self,
        fit: SparseCodes,
        judge: SparseCodes,
        order: Int[Tensor, "labels k"],
        splits: Sequence[int],
        detected: Bool[Tensor, "judge labels"],
    ) -> tuple[list[Absorption | None], Bool[Tensor, "judge labels"]]:
        """For each label; and which of its tokens are absorbed."""
        site, dictionary = self.subject.site, self.subject.dictionary
        if dictionary.config.targets:
            return [None] * len(order), torch.zeros_like(detected)
        where = specificity(fit, self.tokens.labels[self.tokens.fit])
        ceiling = Ceiling(detected, self.tokens.dense(site).direction, self.tokens.projection(site))
        directions = dictionary.decoder_directions().float().cpu()
        found: list[Absorption | None] = []
        absorbed: list[Tensor] = []
        for i, size in enumerate(splits):
            main = main_latents(order[i, :size], i, where)
            of_label, tokens = absorption(judge, i, main, where, ceiling, directions)
            found.append(of_label)
            absorbed.append(tokens)
        return found, torch.stack(absorbed, dim=1)

    def _of_label(self, i: int) -> LabelScore:
        found = self._findings
        probes = [
            ProbeScore(**found.judged[f"probe_{k}"][i].model_dump(), latents=tuple(found.order[i, :k].tolist()))
            for k in range(1, found.order.shape[1] + 1)
        ]
        return LabelScore(
            label=self.tokens.names[self.tokens.judged[i]],
            positives=int(self.tokens.labels[~self.tokens.fit][:, i].sum()),
            latent=int(found.best.latent[i]),
            threshold=float(found.best.threshold[i]),
            best=found.judged["best"][i],
            probes=probes,
            splits=found.splits[i],
            parts_95=nearly_all(_f1(found.judged, i)),
            dense=found.judged["dense"][i],
            absorption=found.absorptions[i],
        )

    def _intervals(self) -> Intervals:
        counts = self._findings.counts
        detectors = {name: title for name, title in _WITH_INTERVAL.items() if name in self._findings.judged}
        found = intervals(counts.sums, partial(interval_numbers, counts, detectors), self.resamples, self.seed)
        of = {name: Interval(low=low, high=high) for name, (low, high) in found.items()}
        return Intervals(resamples=self.resamples, of=of)


def parts(f1: Sequence[float]) -> int:
    """Number of latents after which one more adds `WORTH` or less to the F1 of a probe (f1[0]: of one latent)."""
    return next((k for k in range(1, len(f1)) if f1[k] - f1[k - 1] <= WORTH), len(f1))


def nearly_all(f1: Sequence[float]) -> int | None:
    """Latents of the smallest probe with `NEARLY` all of the largest one's F1 (the last); None if that detects none."""
    return next(k for k, value in enumerate(f1, 1) if value >= NEARLY * f1[-1]) if f1[-1] > 0 else None


def _f1(judgements: Mapping[str, list[Judged]], i: int) -> list[float]:
    """F1 of a label's probes of one latent, of two, …"""
    sizes = range(1, 1 + sum(name.startswith("probe_") for name in judgements))
    return [judgements[f"probe_{k}"][i].f1 or 0.0 for k in sizes]


def _marks(
    detectors: Mapping[str, Detector], truth: Bool[Tensor, "judge labels"]
) -> dict[str, Bool[Tensor, "judge labels"]]:
    """Of the detectors whose means have intervals: tokens they detect, and those of them that are right."""
    marks: dict[str, Tensor] = {}
    for name in (name for name in _WITH_INTERVAL if name in detectors):
        marks |= {f"{name}.on": detectors[name].on, f"{name}.hits": detectors[name].on & truth}
    return marks


def _means(labels: list[LabelScore]) -> LabelsMetrics:
    def mean(values: list[float | None]) -> float:
        return sum(value or 0.0 for value in values) / len(values)

    def of_known(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

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
        parts_95=of_known([label.parts_95 for label in labels]),
        main_recall=of_known([label.absorption and label.absorption.main_recall for label in labels]),
        absorption=of_known([label.absorption and label.absorption.rate for label in labels]),
    )
