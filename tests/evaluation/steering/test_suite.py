"""The suite as a whole: on a tiny random GPT-2, with labels that are read off the token ids."""

from dataclasses import replace

import jsonschema
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from saelab.corpora import Cursor, TokenRows
from saelab.corpora.microworld.labels import LABELS
from saelab.dictionaries.config import Target
from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch
from saelab.evaluation.measure import Text, measure
from saelab.evaluation.report import load_report
from saelab.evaluation.reports import json_schema
from saelab.evaluation.steering.config import SteeringConfig
from saelab.evaluation.steering.material import SteeringText
from saelab.evaluation.steering.report import Outcome, SteeringReport
from saelab.evaluation.tables import table
from saelab.models import LanguageModel
from saelab.steering.effect import Contexts, effects, equal_strength

SITE = "blocks.0.resid_post"
CONFIG = SteeringConfig.model_validate(
    {"contexts": 8, "following": 2, "longest": 9, "latents": None, "lengths": [2.0, 1.0]}
)


def of_ids(rows) -> torch.Tensor:
    """Label 0 is "an even id", label 1 "an id below 10"; the others are on nothing."""
    labels = torch.zeros(*rows.ids.shape, len(LABELS), dtype=torch.bool)
    labels[..., 0] = rows.ids % 2 == 0
    labels[..., 1] = rows.ids < 10
    return labels


@pytest.fixture(scope="module")
def many() -> TokenRows:
    """Sixty rows of thirty documents, so that every token is seen in both halves."""
    ids = torch.randint(40, (60, 12), generator=torch.Generator().manual_seed(5), dtype=torch.int32)
    documents = (torch.arange(60 * 12) // 24).reshape(60, 12)
    excluded = torch.zeros(60, 12, dtype=torch.uint8)
    excluded[:, 0] = 1
    return TokenRows(ids, documents, torch.zeros_like(ids), excluded, Cursor(), Cursor())


def cut(rows: TokenRows, size: int) -> list[TokenRows]:
    return [
        replace(rows, ids=rows.ids[i], documents=rows.documents[i], offsets=rows.offsets[i], excluded=rows.excluded[i])
        for i in torch.arange(len(rows)).split(size)
    ]


def run(model, subjects, rows, size=8, labels=of_ids, **changes) -> list[SteeringReport]:
    config = CONFIG.model_copy(update=changes)
    reports = measure(
        model, subjects, cut(rows, size), ["steering"], resamples=40, text=Text(labels=labels), steering=config
    )
    return [report for report in reports if isinstance(report, SteeringReport)]


@pytest.fixture(scope="module")
def subject(random_subject):
    return random_subject(SITE, k=8)


@pytest.fixture(scope="module")
def found(model, many, subject) -> SteeringReport:
    return run(model, [subject], many)[0]


def outcome(report: SteeringReport, *wanted) -> Outcome:
    return next(o for o in report.outcomes if (o.directions, o.method, o.matched, o.strength) == wanted)


def assert_alike(ours, theirs, rel: float) -> None:
    """Equal but for rounding, whatever is nested in what."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_alike(ours[key], theirs[key], rel)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_alike(one, other, rel)
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=rel, abs=1e-4)
    else:
        assert ours == theirs


def test_the_effects_are_those_that_steering_measures(found, model, many, subject):
    # The same places and vectors through the public function.
    text = SteeringText(tuple(LABELS), CONFIG, 0, [subject.writes])
    for rows in cut(many, 8):
        text.take(text.measure(CleanBatch(model, rows, [subject.site], False, of_ids)))
    contexts = [Contexts(place.ids[None, :-2]) for place in text.places]
    latents = torch.arange(32)
    assert found.metrics.sampled == found.metrics.live == 32
    for multiple in CONFIG.lengths:
        length = multiple * text.moments(subject.writes).typical
        expected = effects(model, [subject.site], equal_strength(subject.dictionary, latents, length), contexts)
        ours = outcome(found, "latents", "direction", "equal", multiple)
        assert ours.norm.p10 == pytest.approx(length)
        for name in ("kl", "largest"):
            value = getattr(expected, name).double().mean(1).quantile(0.75)
            assert getattr(ours, name).p75 == pytest.approx(float(value), rel=1e-3)
        assert ours.agreement.mean == pytest.approx(float(expected.agreement.mean()))


def test_headlines_are_those_of_the_first_strengths(found):
    equal, own = (outcome(found, "latents", "direction", *of) for of in (("equal", 2.0), ("own", 1.0)))
    assert (found.metrics.kl, found.metrics.harm) == (equal.kl.p50, equal.harm.p50)
    assert (found.metrics.own_kl, found.metrics.own_gain_per_harm) == (own.kl.p50, own.pooled)
    random = outcome(found, "random", "direction", "equal", 2.0)
    assert found.metrics.largest_random == random.largest.p50
    assert found.intervals.of["largest_random"] == random.largest.interval
    foretells = next(part for part in found.target_means or [] if part.way == "foretells")
    assert (found.metrics.on, found.metrics.selectivity) == (foretells.on, foretells.selectivity)


def test_every_way_of_steering_is_judged_on_the_same_labels(found):
    assert [target.label for target in found.targets or []] == list(LABELS)[:2]
    for target in found.targets or []:
        assert [steered.way for steered in target.ways] == [
            "detects", "foretells", "mean on it", "mean before it", "random",
        ]  # fmt: skip
        for steered in target.ways:
            assert (steered.latent is None) == (steered.way not in ("detects", "foretells"))
            assert [moved.label for moved in steered.moved] == [
                other for other in list(LABELS)[:2] if other != target.label
            ]
    for place, part in enumerate(found.target_means or []):
        ways = [target.ways[place] for target in found.targets or []]
        assert part.on == pytest.approx(sum(way.on or 0 for way in ways) / 2)
        assert part.selectivity == pytest.approx(sum(w.on or 0 for w in ways) / sum(w.off or 0 for w in ways))
        assert part.on_per_harm is None or part.on_per_harm == pytest.approx(
            sum(w.on or 0 for w in ways) / sum(w.harm or 0 for w in ways)
        )


def test_batches_and_company_make_no_difference(found, model, many, subject, random_subject):
    together = run(model, [random_subject(SITE, 1, k=8), subject], many, size=5)[1]
    for part in ("metrics", "outcomes", "targets", "target_means", "intervals"):
        ours, theirs = (report.model_dump(mode="json")[part] for report in (found, together))
        assert_alike(ours, theirs, rel=1e-3)


def test_the_order_of_latents_makes_no_difference(found, model, many, subject):
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    dictionary = subject.dictionary
    shuffled = replace(dictionary, W_enc=dictionary.W_enc[order], W_dec=dictionary.W_dec[order])
    other = run(model, [replace(subject, dictionary=shuffled)], many)[0]
    for part in ("metrics", "outcomes", "target_means"):
        ours, theirs = (report.model_dump(mode="json")[part] for report in (found, other))
        assert_alike(ours, theirs, rel=1e-3)
    for ours, theirs in zip(found.targets or [], other.targets or [], strict=True):
        assert [w.latent for w in ours.ways[:2]] == [int(order[w.latent or 0]) for w in theirs.ways[:2]]


def test_number_formats_agree_within_their_rounding(found, many, subject):
    torch.manual_seed(0)  # the model of the other tests
    config = GPT2Config(
        vocab_size=40, n_positions=12, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    rounded = LanguageModel.from_hf(GPT2LMHeadModel(config).bfloat16(), name="tiny")
    fingerprint = {"model_fingerprint": rounded.fingerprint}
    dictionary = subject.dictionary
    config = dictionary.config.model_copy(update=fingerprint)
    other = run(rounded, [replace(subject, dictionary=replace(dictionary, config=config))], many)[0]
    ours, theirs = (outcome(report, "latents", "direction", "equal", 2.0) for report in (found, other))
    for name in ("norm", "kl", "largest"):
        assert getattr(theirs, name).mean == pytest.approx(getattr(ours, name).mean, rel=0.05)
    assert theirs.harm.mean == pytest.approx(ours.harm.mean, rel=0.1, abs=0.02)


def test_text_of_which_nothing_is_known_is_steered_all_the_same(model, many, subject):
    report = run(model, [subject], many, labels=None)[0]
    assert (report.targets, report.target_means, report.metrics.labels) == (None, None, None)
    assert {o.directions for o in report.outcomes} == {"latents", "random"}
    assert report.metrics.kl_mean_difference is None
    assert report.metrics.kl is not None


def test_some_latents_are_drawn_and_counted(model, many, subject):
    report = run(model, [subject], many, latents=5)[0]
    assert (report.metrics.sampled, report.metrics.live) == (5, 32)
    assert {o.vectors for o in report.outcomes if o.directions == "latents"} == {5}


def test_a_dictionary_on_which_nothing_fires_is_refused(model, many, subject):
    silent = replace(subject.dictionary, b_enc=torch.full((32,), -1e6))
    with pytest.raises(UserError, match="no latent of random-0 fired"):
        run(model, [replace(subject, dictionary=silent)], many)


def test_a_transcoder_is_steered_where_it_writes(model, many, subject):
    weights = torch.nn.functional.normalize(torch.randn(32, 24, generator=torch.Generator().manual_seed(9)), dim=1)
    targets = (
        Target(site="blocks.1.mlp_out", width=16, scale=1.0),
        Target(site="blocks.1.attn.z.head0", width=8, scale=1.0),
    )
    config = subject.dictionary.config.model_copy(update={"targets": targets})
    transcoder = replace(subject.dictionary, W_dec=weights, b_dec=torch.zeros(24), config=config)
    report = run(model, [replace(subject, dictionary=transcoder)], many)[0]
    assert report.metrics.kl is not None
    assert report.metrics.gain is None  # a head's output is not the residual stream
    assert report.metrics.on is not None


def test_the_report_is_published(found, tmp_path):
    schema = json_schema("steering")
    found.save(tmp_path / "steering.json")
    assert load_report(SteeringReport, tmp_path / "steering.json") == found
    jsonschema.validate(found.model_dump(mode="json"), schema)
    for name in ("Spread", "Outcome", "Steered", "Target", "TargetMeans", "Moved", "SteeringMetrics"):
        for key, field in schema["$defs"][name]["properties"].items():
            kinds = {part.get("type") for part in [field, *field.get("anyOf", [])]}
            if kinds & {"number", "integer"} and key != "latent":  # which is a name
                assert {"title", "description", "unit"} <= field.keys(), (name, key)
    assert table([found]).row_count == len(type(found.metrics).model_fields)
    assert found.about.settings["steering"]["contexts"] == 8
