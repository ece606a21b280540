"""Gradient-aware selection beside the headline: where it is the same, that it leaks, and that it says so."""

import io
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from saelab.dictionaries.config import GradientAffinity
from saelab.evaluation.batch import Subject
from saelab.evaluation.measure import measure
from saelab.evaluation.report import FidelityReport, LeakingMetrics, load_report
from saelab.evaluation.tables import table

SITE = "blocks.0.resid_post"


@pytest.fixture
def gradient_subject(random_subject):
    def build(beta: float, **options) -> Subject:
        subject = random_subject(SITE, **options)
        affinity = GradientAffinity(beta=beta)
        config = subject.dictionary.config.model_copy(update={"affinity": affinity, "architecture": "gradient"})
        return replace(subject, dictionary=replace(subject.dictionary, config=config))

    return build


def fidelity(model, subject: Subject, chunks) -> FidelityReport:
    (report,) = measure(model, [subject], chunks, ["fidelity"], resamples=20)
    assert isinstance(report, FidelityReport)
    return report


def test_the_headline_never_sees_the_gradient(model, chunks, random_subject, gradient_subject):
    plain, gradient = fidelity(model, random_subject(SITE), chunks), fidelity(model, gradient_subject(3.0), chunks)
    assert plain.leaking is None
    assert gradient.leaking is not None
    assert gradient.metrics == plain.metrics
    assert gradient.intervals == plain.intervals
    assert gradient.about.selection_rule == "top 4 of each token, gradient-free"


def test_without_weight_on_the_gradient_both_are_the_same(model, chunks, gradient_subject):
    report = fidelity(model, gradient_subject(0.0), chunks)
    assert report.leaking is not None
    for name in LeakingMetrics.model_fields:
        assert getattr(report.leaking.metrics, name) == getattr(report.metrics, name)
        assert report.leaking.intervals.of[name] == report.intervals.of[name]


def test_the_gradient_is_that_of_the_summed_loss(model, rows, gradient_subject):
    # One batch of all rows, so that the normalisation of |g| is over the same tokens here and there.
    subject, keep = gradient_subject(5.0), rows.keep
    x, gradient = (
        found[subject.site][keep] for found in model.activations_and_gradients(rows.ids.long(), [subject.site])
    )
    dictionary = subject.dictionary
    g = (gradient @ dictionary.W_dec.T).abs()
    z = dictionary.pre_activations(x)
    best = (z * (1 + 5.0 * g / g.mean())).topk(4, dim=1).indices
    codes = torch.zeros_like(z).scatter(1, best, z.gather(1, best)).relu()
    x_hat = codes @ dictionary.W_dec
    fvu = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    report = fidelity(model, subject, [rows])
    assert report.leaking is not None
    assert report.leaking.metrics.fvu == pytest.approx(fvu.item(), rel=1e-4)
    assert report.metrics.fvu is not None
    assert fvu.item() > 1.0001 * report.metrics.fvu  # plain top-k reconstructs better
    assert report.leaking.tokens_together == int(keep.sum())


def test_coordinates_that_matter_to_the_loss_cost_less(model, rows, make_subject):
    # Latents ± coordinate at half the budget: keeping those with a large gradient loses less than the largest ones.
    eye = torch.eye(16)
    subject = make_subject(SITE, torch.cat([eye, -eye]), torch.cat([eye, -eye]), k=8)
    config = subject.dictionary.config.model_copy(update={"affinity": GradientAffinity(beta=1.0)})
    report = fidelity(model, replace(subject, dictionary=replace(subject.dictionary, config=config)), [rows])
    assert report.leaking is not None
    ours, theirs = report.leaking.metrics.delta_ce, report.metrics.delta_ce
    assert ours is not None
    assert theirs is not None
    assert 0 < ours < theirs / 2


def test_it_is_marked_wherever_it_is_shown(model, chunks, random_subject, gradient_subject, tmp_path):
    reports = [fidelity(model, subject, chunks) for subject in (random_subject(SITE), gradient_subject(1.0))]
    reports[1].save(tmp_path / "fidelity.json")
    again = load_report(FidelityReport, tmp_path / "fidelity.json")
    assert again == reports[1]
    assert again.leaking is not None
    assert "leak the label" in again.leaking.warning
    file = io.StringIO()
    Console(width=200, file=file).print(table(reports))
    headline, _, leaking = file.getvalue().partition("leaking: latents chosen with the next token's loss in sight")
    assert f"{again.metrics.kl:.4f}" in headline
    assert f"{again.leaking.metrics.kl:.4f}" in leaking
    assert f"{again.leaking.metrics.kl:.4f}" not in headline


def test_reports_from_before_are_still_read(model, chunks, random_subject):
    content = fidelity(model, random_subject(SITE), chunks).model_dump(mode="json")
    del content["leaking"], content["metrics"]["l0_over_k"], content["about"]["k"], content["about"]["targets"]
    assert FidelityReport.model_validate(content).leaking is None
