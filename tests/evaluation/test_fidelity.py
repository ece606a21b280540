"""Fidelity on a tiny random GPT-2: cases whose answer is known, and agreement with a computation done by hand."""

from dataclasses import replace

import pytest
import torch

from saelab.corpora import Reason, TokenRows
from saelab.errors import UserError
from saelab.evaluation.batch import Subject
from saelab.evaluation.measure import measure
from saelab.evaluation.report import FidelityReport
from saelab.models import Intervention, LanguageModel, Site

SITES = ["blocks.0.resid_post", "blocks.1.mlp_out", "blocks.0.attn_out", "blocks.1.attn.z", "blocks.1.attn.q.head1",
         "blocks.1.resid_mid"]  # fmt: skip


def fidelity(model: LanguageModel, subject: Subject, chunks: list[TokenRows], **options) -> FidelityReport:
    (report,) = measure(model, [subject], chunks, ["fidelity"], resamples=50, **options)
    assert isinstance(report, FidelityReport)
    return report


@pytest.mark.parametrize("site", SITES)
def test_the_identity_dictionary_loses_nothing(model, chunks, identity, site: str):
    metrics = fidelity(model, identity(site), chunks).metrics
    assert metrics.delta_ce == pytest.approx(0, abs=1e-6)
    assert metrics.kl == pytest.approx(0, abs=1e-6)
    assert metrics.fvu == pytest.approx(0, abs=1e-10)
    assert metrics.bias == pytest.approx(1, abs=1e-6)
    assert metrics.cosine == pytest.approx(1, abs=1e-6)
    assert metrics.loss_recovered_zero == pytest.approx(1, abs=1e-4)
    assert metrics.loss_recovered_mean == pytest.approx(1, abs=1e-4)


def test_predicting_the_mean_explains_nothing(model, rows, chunks, make_subject):
    site = Site.parse("blocks.0.resid_post")
    mean = model.activations(rows.ids, [site])[site][rows.keep].mean(0)
    nothing = torch.zeros(4, len(mean))
    subject = make_subject(str(site), nothing, nothing, b_dec=mean, threshold=1e9)
    metrics = fidelity(model, subject, chunks).metrics
    assert metrics.explained_variance == pytest.approx(0, abs=1e-6)
    assert metrics.loss_recovered_mean == pytest.approx(0, abs=1e-4)  # x_hat is the ablation itself
    assert metrics.l0 == 0
    assert metrics.dead_fraction == 1


def test_reconstructing_zero_is_the_zero_ablation(model, chunks, make_subject):
    nothing = torch.zeros(4, 16)
    metrics = fidelity(model, make_subject("blocks.0.resid_post", nothing, nothing), chunks).metrics
    assert metrics.ce_sae == metrics.ce_zero
    assert metrics.loss_recovered_zero == 0
    assert metrics.bias is None  # E[x·x_hat] = 0: undefined is null
    assert metrics.cosine == 0


@pytest.mark.parametrize("site", SITES)
def test_splicing_the_error_back_gives_the_clean_loss(model, chunks, random_subject, site: str):
    metrics = fidelity(model, random_subject(site), chunks).metrics
    assert metrics.splice_error == pytest.approx(0, abs=1e-5)
    assert metrics.delta_ce != pytest.approx(0, abs=1e-3)  # the reconstruction alone does not


def test_numbers_agree_with_a_direct_computation(model, rows, chunks, random_subject):
    subject = random_subject("blocks.0.resid_post", scale=0.5)
    site, keep = subject.site, rows.keep
    ids = rows.ids.long()
    x = model.activations(ids, [site])[site]
    x_hat = torch.where(keep[..., None], subject.dictionary(x), x)
    mean = x[keep].mean(0)

    def logits_with(value):
        with model.intervene(Intervention(site, lambda _: torch.where(keep[..., None], value, x))):
            return model.logits(ids)

    scored = keep[:, :-1]

    def ce(logits):
        nll = -logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        return nll[scored].mean().item()

    clean, sae = model.logits(ids), logits_with(x_hat)
    p, q = clean[:, :-1].log_softmax(-1), sae[:, :-1].log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1)[scored].mean().item()
    error, spread = (x - x_hat)[keep].square().sum().item(), (x[keep] - mean).square().sum().item()

    report = fidelity(model, subject, chunks)
    metrics = report.metrics
    assert metrics.ce_clean == pytest.approx(ce(clean), rel=1e-5)
    assert metrics.ce_sae == pytest.approx(ce(sae), rel=1e-5)
    assert metrics.ce_zero == pytest.approx(ce(logits_with(torch.zeros_like(x))), rel=1e-5)
    assert metrics.ce_mean == pytest.approx(ce(logits_with(mean.expand_as(x))), rel=1e-5)
    assert metrics.kl == pytest.approx(kl, rel=1e-4)
    assert metrics.fvu == pytest.approx(error / spread, rel=1e-5)
    assert metrics.l0 == 4
    assert report.about.tokens == int(keep.sum())
    assert report.about.predictions == int(scored.sum())
    assert report.about.excluded == rows.ids.numel() - int(keep.sum())
    assert report.about.documents == 5


def test_excluded_positions_count_nowhere(model, rows, random_subject):
    # Other tokens at the row's last position change no kept prediction's past; if it is excluded, nothing may change
    # but the target of the position before it. Excluding that one too, every number stays.
    last_two = torch.arange(rows.ids.shape[1]).expand_as(rows.ids) >= rows.ids.shape[1] - 2
    fewer = rows.leave_out(last_two, Reason.SAMPLED)
    other = rows.ids.clone()
    other[:, -1] = (other[:, -1] + 7) % 40
    subject = random_subject("blocks.0.resid_post")
    changed = [replace(fewer, ids=ids) for ids in (rows.ids, other)]
    first, second = (fidelity(model, subject, [r]).metrics for r in changed)
    assert first == second


def test_without_any_prediction_there_is_no_cross_entropy(model, rows, random_subject):
    excluded = torch.full_like(rows.excluded, Reason.SAMPLED)
    excluded[:, -1] = 0  # the last position of a row predicts nothing
    only_last = replace(rows, excluded=excluded)
    report = fidelity(model, random_subject("blocks.0.resid_post"), [only_last])
    assert (report.about.tokens, report.about.predictions) == (10, 0)
    assert report.metrics.ce_clean is report.metrics.kl is report.metrics.splice_error is None
    assert report.intervals.of["ce_clean"].low is None
    assert report.metrics.l0 == 4


@pytest.mark.parametrize("size", [1, 3, 10])
def test_batch_size_and_order_do_not_matter(model, cut, random_subject, size: int):
    subject = random_subject("blocks.1.resid_post")
    reference = fidelity(model, subject, cut(4))
    order = torch.randperm(10, generator=torch.Generator().manual_seed(size)).tolist()
    other = fidelity(model, subject, cut(size, order))
    splice = {"splice_error"}  # taken on the first batch
    assert other.metrics.model_dump(exclude=splice) == pytest.approx(
        reference.metrics.model_dump(exclude=splice), rel=1e-5
    )
    fvu, same = other.intervals.of["fvu"], reference.intervals.of["fvu"]
    assert (fvu.low, fvu.high) == pytest.approx((same.low, same.high), rel=1e-5)


def test_the_ablation_mean_does_not_depend_on_the_chunks(model, cut, random_subject):
    reports = [fidelity(model, random_subject("blocks.0.resid_post"), cut(size), mean_tokens=25) for size in (1, 4, 10)]
    # Rows keep 10 or 11 tokens here, so 25 tokens are reached in the third row whatever the chunks are.
    assert len({report.about.mean_tokens for report in reports}) == 1
    assert 25 <= reports[0].about.mean_tokens <= 33
    ce_mean = [report.metrics.ce_mean for report in reports]
    assert ce_mean == pytest.approx([ce_mean[0]] * 3, rel=1e-6)


def test_fvu_is_measured_around_the_mean_of_all_tokens(model, cut, random_subject):
    # ... although the scatter is summed around the mean of the first few.
    subject = random_subject("blocks.0.resid_post")
    few, all_tokens = (fidelity(model, subject, cut(4), mean_tokens=n).metrics for n in (5, 10_000))
    assert few.fvu == pytest.approx(all_tokens.fvu, rel=1e-9)
    assert few.ce_mean != all_tokens.ce_mean


def test_several_dictionaries_at_several_sites_as_if_alone(model, chunks, identity, random_subject):
    subjects = [
        identity("blocks.0.resid_post"),
        random_subject("blocks.1.attn.z.head1", 1),
        random_subject(SITES[0], 2),
    ]
    together = measure(model, subjects, chunks, ["fidelity"], resamples=20)
    for subject, report in zip(subjects, together, strict=True):
        alone = measure(model, [subject], chunks, ["fidelity"], resamples=20)[0]
        # Not bit for bit: where another site hooks inside attention, the model computes that layer step by step.
        assert report.metrics.model_dump() == pytest.approx(alone.metrics.model_dump(), rel=1e-5, abs=1e-6)
        assert report.about.dictionary == subject.name


def test_several_dictionaries_share_the_clean_and_ablated_runs(model, chunks, random_subject, monkeypatch):
    calls = []
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda ids: calls.append(1) or logits(ids))
    measure(model, [random_subject(SITES[0], seed) for seed in range(3)], chunks, ["fidelity"], resamples=20)
    # A batch runs clean, zero-ablated and mean-ablated once, and once for each dictionary; the first batch also has
    # one splice check each: 3 batches · (3 + 3) + 3.
    assert len(calls) == 3 * (3 + 3) + 3


def test_intervals_hold_the_number_and_follow_the_seed(model, chunks, random_subject):
    subject = random_subject(SITES[0])
    report = measure(model, [subject], chunks, ["fidelity"], resamples=400, seed=5)[0]
    assert isinstance(report, FidelityReport)
    for name in ("ce_clean", "ce_sae", "fvu", "kl", "delta_ce"):
        interval = report.intervals.of[name]
        assert interval.low < getattr(report.metrics, name) < interval.high
    again = measure(model, [subject], chunks, ["fidelity"], resamples=400, seed=5)[0]
    assert isinstance(again, FidelityReport)
    assert again.intervals == report.intervals


def test_another_models_dictionary_is_refused(model, chunks, random_subject):
    with pytest.raises(UserError, match="weights of tiny"):
        measure(model, [random_subject(SITES[0], model_fingerprint="0" * 64)], chunks)


def test_another_tokenizer_is_refused(model, chunks, random_subject):
    with pytest.raises(UserError, match="another tokenizer"):
        measure(model, [random_subject(SITES[0], tokenizer_fingerprint="f" * 64)], chunks)


def test_a_width_that_does_not_fit_is_refused(model, chunks, make_subject):
    weights = torch.eye(5)
    with pytest.raises(UserError, match=r"reads 5 numbers.*has 16"):
        measure(model, [make_subject(SITES[0], weights, weights)], chunks)


def test_no_kept_token_is_refused(model, rows, random_subject):
    empty = rows.leave_out(rows.keep, Reason.SAMPLED)
    with pytest.raises(UserError, match="no token to evaluate on"):
        measure(model, [random_subject(SITES[0])], [empty])
