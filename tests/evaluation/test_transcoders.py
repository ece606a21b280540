"""Fidelity where a dictionary reads one site and writes others: everything happens at the targets."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from saelab.dictionaries.config import Target
from saelab.errors import UserError
from saelab.evaluation.batch import Subject
from saelab.evaluation.measure import measure
from saelab.evaluation.report import FidelityReport
from saelab.models import Intervention, Site

READS, MLP, LATE = "blocks.0.resid_mid", "blocks.0.mlp_out", "blocks.1.attn.z.head1"


@pytest.fixture
def transcoder(model, random_subject):
    """A random top-k dictionary that reads one site and writes others."""

    def build(site: str, *targets: str, W_dec: Tensor | None = None, b_dec: Tensor | None = None) -> Subject:
        subject = random_subject(site, k=4, scale=0.5)
        described = tuple(
            Target(site=t, width=model.width(Site.parse(t)), scale=0.5 + i) for i, t in enumerate(targets)
        )
        d_out = sum(target.width for target in described)
        generator = torch.Generator().manual_seed(5)
        W_dec = torch.randn(32, d_out, generator=generator) if W_dec is None else W_dec
        b_dec = torch.randn(d_out, generator=generator) if b_dec is None else b_dec
        config = subject.dictionary.config.model_copy(update={"targets": described})
        return replace(subject, dictionary=replace(subject.dictionary, W_dec=W_dec, b_dec=b_dec, config=config))

    return build


def fidelity(model, subject: Subject, chunks) -> FidelityReport:
    (report,) = measure(model, [subject], chunks, ["fidelity"], resamples=20)
    assert isinstance(report, FidelityReport)
    return report


@pytest.mark.parametrize("targets", [(MLP,), (MLP, LATE), (READS, LATE)])
def test_numbers_agree_with_a_direct_computation(model, rows, chunks, transcoder, targets: tuple[str, ...]):
    subject, keep, ids = transcoder(READS, *targets), rows.keep, rows.ids.long()
    sites = [Site.parse(target) for target in targets]
    clean = model.activations(ids, [Site.parse(READS), *sites])
    y = torch.cat([clean[site] for site in sites], dim=-1)
    y_hat = subject.dictionary(clean[Site.parse(READS)])

    def ce(value: Tensor) -> float:
        parts = value.expand_as(y).split([model.width(site) for site in sites], dim=-1)
        edits = [
            Intervention(site, lambda x, v=part: torch.where(keep[..., None], v, x))
            for site, part in zip(sites, parts, strict=True)
        ]
        with model.intervene(*edits):
            logits = model.logits(ids)
        nll = -logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        return nll[keep[:, :-1]].mean().item()

    report = fidelity(model, subject, chunks)
    metrics, mean = report.metrics, y[keep].mean(0)
    assert metrics.ce_sae == pytest.approx(ce(y_hat), rel=1e-5)
    assert metrics.ce_zero == pytest.approx(ce(torch.zeros_like(mean)), rel=1e-5)
    assert metrics.ce_mean == pytest.approx(ce(mean), rel=1e-5)
    fvu = (y - y_hat)[keep].square().sum() / (y[keep] - mean).square().sum()
    assert metrics.fvu == pytest.approx(fvu.item(), rel=1e-5)
    assert metrics.splice_error == pytest.approx(0, abs=1e-5)
    assert report.about.site == READS
    assert report.about.targets == targets


def test_writing_the_mean_explains_nothing(model, rows, chunks, transcoder):
    site = Site.parse(MLP)
    mean = model.activations(rows.ids.long(), [site])[site][rows.keep].mean(0)
    metrics = fidelity(model, transcoder(READS, MLP, W_dec=torch.zeros(32, 16), b_dec=0.5 * mean), chunks).metrics
    assert metrics.explained_variance == pytest.approx(0, abs=1e-6)
    assert metrics.loss_recovered_mean == pytest.approx(0, abs=1e-4)


def test_a_transcoder_beside_an_ordinary_dictionary(model, chunks, transcoder, random_subject):
    subjects = [transcoder(READS, MLP), random_subject(MLP)]
    together = measure(model, subjects, chunks, ["fidelity"], resamples=20)
    for subject, report in zip(subjects, together, strict=True):
        alone = fidelity(model, subject, chunks)
        assert report.metrics.model_dump() == pytest.approx(alone.metrics.model_dump(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("reads", "writes"), [(LATE, MLP), (MLP, READS), ("blocks.1.resid_post", LATE)])
def test_a_target_before_the_input_is_refused(model, chunks, transcoder, reads: str, writes: str):
    subject = transcoder(reads, writes)
    with pytest.raises(UserError, match=f"reads {reads} and writes {writes}, which the model computes before it"):
        measure(model, [subject], chunks, ["fidelity"])
    assert measure(model, [subject], chunks, ["sparsity"])[0].metrics.model_dump()["l0"] == 4


def test_a_target_of_another_width_is_refused(model, chunks, transcoder):
    subject = transcoder(READS, MLP)
    targets = (Target(site=LATE, width=16, scale=1.0),)
    wrong = replace(subject.dictionary, config=subject.dictionary.config.model_copy(update={"targets": targets}))
    with pytest.raises(UserError, match=r"writes 16 numbers to blocks.1.attn.z.head1, which has 8"):
        measure(model, [replace(subject, dictionary=wrong)], chunks)
