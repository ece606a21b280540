"""The labels suite as a whole: on a tiny random GPT-2, with labels that are read off the token ids."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from saelab.corpora.microworld.labels import LABELS
from saelab.dictionaries.config import Target
from saelab.errors import UserError
from saelab.evaluation.labels.probes import detection
from saelab.evaluation.labels.report import LabelsReport
from saelab.evaluation.labels.suite import parts
from saelab.evaluation.measure import Text, measure, measured

SITE = "blocks.0.resid_post"


def of_ids(rows) -> torch.Tensor:
    """Label 0 is "an even id", label 1 "an id below 10"; the others are on nothing."""
    labels = torch.zeros(*rows.ids.shape, len(LABELS), dtype=torch.bool)
    labels[..., 0] = rows.ids % 2 == 0
    labels[..., 1] = rows.ids < 10
    return labels


def report(model, subjects, chunks) -> list[LabelsReport]:
    reports = measure(model, subjects, chunks, ["labels"], resamples=20, text=Text(labels=of_ids))
    return [report for report in reports if isinstance(report, LabelsReport)]


@pytest.fixture(scope="module")
def subject(random_subject):
    return random_subject(SITE, 0)


@pytest.fixture(scope="module")
def found(model, chunks, subject) -> LabelsReport:
    return report(model, [subject], chunks)[0]


def test_only_labels_that_occur_are_judged(found: LabelsReport):
    assert [score.label for score in found.by_label] == list(LABELS)[:2]
    assert found.metrics.labels == 2


def test_the_best_latent_is_judged_on_the_other_documents(found: LabelsReport, model, rows, subject):
    with torch.no_grad():
        x = model.activations(rows.ids, [subject.site])[subject.site]
    judge = rows.keep & (rows.documents % 2 == 1)
    codes = subject.dictionary.encode(x[judge]).to_dense()
    for i, score in enumerate(found.by_label):
        truth = of_ids(rows)[judge][:, i]
        assert score.positives == int(truth.sum())
        by_hand = detection((codes[:, score.latent] > score.threshold)[:, None], truth[:, None])
        assert score.best.f1 == pytest.approx(by_hand.f1.item())
        assert score.best.recall == pytest.approx(by_hand.recall.item())


def test_the_means_are_over_labels(found: LabelsReport):
    assert found.metrics.best_f1 == pytest.approx(fmean(label.best.f1 or 0 for label in found.by_label))
    assert found.metrics.probe_f1_2 == pytest.approx(fmean(label.probes[1].f1 or 0 for label in found.by_label))


def test_the_interval_holds_the_mean(found: LabelsReport):
    interval = found.intervals.of["best_f1"]
    assert (interval.low or 0) <= (found.metrics.best_f1 or 0) <= (interval.high or 0)


def test_batches_and_company_make_no_difference(found: LabelsReport, model, cut, subject, random_subject):
    together = report(model, [random_subject(SITE, 1), subject], cut(3))
    assert together[1].by_label == found.by_label
    assert together[1].intervals == found.intervals


def test_the_means_follow_from_the_counts_of_the_documents(model, chunks, subject):
    (one,) = measured(model, [subject], chunks, ["labels"], resamples=20, text=Text(labels=of_ids))
    assert one.documents is not None
    counts = {name: values.double() for name, values in one.documents.items()}
    assert counts["document"].tolist() == [1, 3]  # those judged on
    assert counts["positive"].shape == (2, 2)
    metrics = one.report.metrics.model_dump()
    names = {"best": "best_f1", "probe_1": "probe_f1_1", "probe_2": "probe_f1_2", "probe_5": "probe_f1_5"}
    for detector, name in {**names, "dense": "dense_f1"}.items():
        hits, on, positive = (counts[part].sum(0) for part in (f"{detector}.hits", f"{detector}.on", "positive"))
        assert metrics[name] == pytest.approx((2 * hits / (on + positive)).mean().item())
    assert metrics["absorption"] == pytest.approx(
        (counts["absorbed"].sum(0) / counts["detected"].sum(0)).nanmean().item()
    )


def test_absorption_rests_on_what_the_dense_probe_detects(found: LabelsReport):
    known = [(score, score.absorption) for score in found.by_label if score.absorption is not None]
    assert known
    for score, absorbed in known:
        assert absorbed.tokens == round((score.dense.recall or 0) * score.positives)
        assert set(absorbed.main) <= set(score.probes[score.splits - 1].latents)
        assert 0 <= (absorbed.rate or 0) <= 1 - (absorbed.main_recall or 0) + 1e-9


def test_a_transcoder_has_no_absorption(model, chunks, subject):
    # What it reads and what it writes are different sites: a probe of the one says nothing of the other.
    config = subject.dictionary.config.model_copy(
        update={"targets": (Target(site="blocks.1.mlp_out", width=16, scale=1.0),)}
    )
    transcoder = replace(subject, dictionary=replace(subject.dictionary, config=config))
    (of_transcoder,) = report(model, [transcoder], chunks)
    assert all(score.absorption is None for score in of_transcoder.by_label)
    assert of_transcoder.metrics.absorption is of_transcoder.metrics.main_recall is None
    assert of_transcoder.intervals.of["absorption"].low is None


def test_text_without_labels_is_refused(model, chunks, subject):
    with pytest.raises(UserError, match="needs text with labels"):
        measure(model, [subject], chunks, ["labels"])


def test_too_little_text_is_refused(model, cut, subject):
    with pytest.raises(UserError, match="read more"):
        report(model, [subject], cut(2)[:1])


def test_latents_in_a_label_by_hand():
    assert parts([0.5, 0.52, 0.9]) == 1  # the second adds 0.02
    assert parts([0.5, 0.6, 0.62]) == 2
    assert parts([0.5, 0.6, 0.7]) == 3
