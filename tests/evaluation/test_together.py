"""Several substitutions in one pass: against the same done by hand, and where the answer is known."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from saelab.dictionaries.config import Target
from saelab.errors import UserError
from saelab.evaluation.batch import Subject
from saelab.evaluation.measure import measure
from saelab.evaluation.printing import markdown
from saelab.evaluation.report import FidelityReport, load_report
from saelab.evaluation.together.measure import measure_together
from saelab.evaluation.together.report import AloneMetrics, TogetherMetrics, TogetherReport
from saelab.evaluation.together.table import side_by_side
from saelab.models import Intervention

EARLY, MIDDLE, LATE = "blocks.0.mlp_out", "blocks.1.attn.z.head1", "blocks.1.resid_post"


def together(model, subjects: Sequence[Subject], chunks, **options) -> TogetherReport:
    return measure_together(model, subjects, chunks, resamples=50, **options)


@pytest.fixture(scope="module")
def subjects(random_subject) -> list[Subject]:
    return [random_subject(site, seed) for seed, site in enumerate((EARLY, MIDDLE, LATE))]


@pytest.fixture(scope="module")
def found(model, chunks, subjects) -> TogetherReport:
    return together(model, subjects, chunks)


def test_the_set_agrees_with_a_direct_computation(model, rows, found, subjects):
    ids, keep, scored = rows.ids.long(), rows.keep[..., None], rows.keep[:, :-1]
    sites = [subject.site for subject in subjects]
    with torch.no_grad():
        clean = model.logits(ids)[:, :-1].log_softmax(-1)
        means = {site: x[rows.keep].mean(0) for site, x in model.activations(ids, sites).items()}

        def run(values) -> torch.Tensor:
            edits = [Intervention(site, lambda x, v=v: torch.where(keep, v(x), x)) for site, v in values.items()]
            with model.intervene(*edits):
                return model.logits(ids)[:, :-1].log_softmax(-1)

        sae = run({subject.site: subject.dictionary for subject in subjects})
        zero = run(dict.fromkeys(sites, torch.zeros_like))
        mean = run({site: lambda x, m=m: m.expand_as(x) for site, m in means.items()})

    def ce(logs: torch.Tensor) -> float:
        return -logs.gather(2, ids[:, 1:, None])[..., 0][scored].mean().item()

    metrics = found.metrics
    for name, logs in {"ce_clean": clean, "ce_sae": sae, "ce_zero": zero, "ce_mean": mean}.items():
        assert getattr(metrics, name) == pytest.approx(ce(logs), rel=1e-5)
    assert metrics.delta_ce == pytest.approx(ce(sae) - ce(clean), rel=1e-4)
    recovered = (ce(zero) - ce(sae)) / (ce(zero) - ce(clean))
    assert metrics.loss_recovered_zero == pytest.approx(recovered, rel=1e-4)
    assert metrics.kl == pytest.approx((clean.exp() * (clean - sae)).sum(-1)[scored].mean().item(), rel=1e-4)


def test_each_alone_is_its_fidelity(model, chunks, found, subjects):
    reports = measure(model, subjects, chunks, ["fidelity"], resamples=20)
    for alone, report in zip(found.alone, reports, strict=True):
        assert isinstance(report, FidelityReport)
        assert alone.dictionary == report.about.dictionary
        expected = report.metrics.model_dump(include=set(type(alone.metrics).model_fields))
        assert alone.metrics.model_dump(exclude={"l0_together"}) == pytest.approx(expected, rel=1e-5)
    total = sum(alone.metrics.delta_ce or 0 for alone in found.alone)
    assert found.metrics.delta_ce_sum == pytest.approx(total, rel=1e-6)
    assert found.metrics.delta_ce != pytest.approx(total, rel=1e-2)  # one acts on what another left


def test_perfect_dictionaries_do_nothing_together(model, chunks, identity):
    report = together(model, [identity(site) for site in (EARLY, MIDDLE, LATE, "blocks.1.attn.q")], chunks)
    assert report.metrics.delta_ce == pytest.approx(0, abs=1e-5)
    assert report.metrics.kl == pytest.approx(0, abs=1e-5)
    assert report.metrics.loss_recovered_zero == pytest.approx(1, abs=1e-4)


def test_beside_a_perfect_one_a_dictionary_is_alone(model, chunks, identity, subjects):
    report = together(model, [identity(EARLY), subjects[2]], chunks)
    assert report.metrics.ce_sae == pytest.approx(report.alone[1].metrics.ce_sae, rel=1e-5)
    assert report.metrics.delta_ce_sum == pytest.approx(report.metrics.delta_ce, abs=1e-5)


def test_a_dictionary_encodes_what_earlier_ones_left(model, rows, chunks, make_subject):
    # The first writes zeros over the stream before the MLP, whose biases are 0 here: nothing is left for the second.
    nothing = make_subject("blocks.0.resid_mid", torch.zeros(4, 16), torch.zeros(4, 16), name="nothing")
    eye = torch.eye(16)
    weights = torch.cat([eye, -eye])
    second = make_subject("blocks.0.resid_post", weights, weights, b_dec=torch.zeros(16), threshold=0.0, name="second")
    report = together(model, [nothing, second], chunks)
    assert report.alone[1].metrics.l0 == 16
    silence = Intervention(nothing.site, lambda x: torch.where(rows.keep[..., None], 0.0, x))
    with model.intervene(silence):
        left = model.activations(rows.ids.long(), [second.site])[second.site][rows.keep]
    assert not left.any()
    assert report.alone[1].metrics.l0_together == 0


def test_a_transcoder_reads_what_is_written_at_its_input(model, chunks, make_subject):
    # ± the coordinates of blocks.1.resid_mid, written to the block's MLP output; at its input a dictionary that writes
    # zeros, so that the transcoder writes zeros too: the same as zero ablation at both.
    eye = torch.eye(16)
    weights = torch.cat([eye, -eye])
    base = make_subject("blocks.1.resid_mid", weights, weights, threshold=0.0, name="transcoder")
    config = base.dictionary.config.model_copy(
        update={"targets": (Target(site="blocks.1.mlp_out", width=16, scale=1.0),)}
    )
    transcoder = replace(base, dictionary=replace(base.dictionary, config=config))
    nothing = make_subject("blocks.1.resid_mid", torch.zeros(4, 16), torch.zeros(4, 16), name="nothing")
    for order in ([transcoder, nothing], [nothing, transcoder]):
        report = together(model, order, chunks)
        assert report.metrics.ce_sae == pytest.approx(report.metrics.ce_zero, rel=1e-6)
        of = next(alone for alone in report.alone if alone.dictionary == "transcoder")
        assert (of.metrics.l0, of.metrics.l0_together) == (16, 0)


@pytest.mark.parametrize("size", [1, 10])
def test_order_and_batches_do_not_matter(model, cut, found, subjects, size: int):
    order = torch.randperm(10, generator=torch.Generator().manual_seed(size)).tolist()
    other = together(model, subjects[::-1], cut(size, order))
    assert other.metrics.model_dump() == pytest.approx(found.metrics.model_dump(), rel=1e-5)
    assert [a.dictionary for a in other.alone] == [a.dictionary for a in found.alone][::-1]
    interval, same = other.intervals.of["delta_ce"], found.intervals.of["delta_ce"]
    assert (interval.low, interval.high) == pytest.approx((same.low, same.high), rel=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (EARLY, EARLY, "both write at blocks.0.mlp_out"),
        ("blocks.1.attn.z", MIDDLE, "blocks.1.attn.z and blocks.1.attn.z.head1"),
    ],
)
def test_two_at_one_site_are_refused(model, chunks, random_subject, first: str, second: str, words: str):
    with pytest.raises(UserError, match=f"random-0 and random-1 can't be substituted together.*{words}"):
        together(model, [random_subject(first, 0), random_subject(second, 1)], chunks)


def test_two_heads_of_a_site_are_two_sites(model, chunks, random_subject):
    heads = [random_subject(f"blocks.1.attn.z.head{head}", head) for head in range(2)]
    assert together(model, heads, chunks).metrics.delta_ce_sum is not None


def test_another_models_dictionary_is_refused(model, chunks, random_subject):
    with pytest.raises(UserError, match="weights of tiny"):
        together(model, [random_subject(EARLY), random_subject(LATE, model_fingerprint="0" * 64)], chunks)


def test_a_report_comes_back_and_shows_its_numbers(found: TogetherReport, tmp_path):
    found.save(tmp_path / "together.json")
    assert load_report(TogetherReport, tmp_path / "together.json") == found
    text = markdown(side_by_side(found))
    assert "random-1 alone" in text
    assert f"{found.metrics.delta_ce:.4f}" in text
    assert f"{found.alone[0].metrics.l0_together:.4f}" in text


def test_every_number_is_defined_in_the_documentation(repository):
    text = (repository / "docs" / "metrics.md").read_text()
    for name in {**TogetherMetrics.model_fields, **AloneMetrics.model_fields}:
        assert f"`{name}`" in text, name
