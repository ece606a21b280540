"""Building: the same bytes again, going on after a stop, what is refused, and corpora with labels."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from saelab.activations.config import HarvestConfig
from saelab.activations.manifest import CorpusPlace, Manifest
from saelab.corpora import CorpusConfig, label_rows, pack
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, read_json, write_json, write_text
from saelab.errors import UserError
from saelab.features import FeatureIndex, IndexConfig, build_index, collect, reading
from saelab.features.collect import Spill
from saelab.features.plan import Plan
from saelab.features.schema import TABLES, summary_path
from saelab.models import LanguageModel, Site
from saelab.ranks.axis import Axis
from tests.features.conftest import D_SAE, POLICY

SMALL = {"tokens": 900, "batch": 8}


def digests(index: Path) -> dict[str, str]:
    return {t.name: hashlib.sha256(t.path(index).read_bytes()).hexdigest() for t in TABLES}


def changed(config: IndexConfig, **values: object) -> IndexConfig:
    return config.model_copy(update=values)


@pytest.fixture(scope="module")
def small(config: IndexConfig, model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> IndexConfig:
    """Settings of a finished index of little text."""
    settings = changed(config, **SMALL, buffer=10**6, out=tmp_path_factory.mktemp("small") / "index")
    build_index(settings, model)
    return settings


def test_the_same_seed_gives_the_same_bytes_however_the_work_is_cut(
    small: IndexConfig, model: LanguageModel, tmp_path: Path
) -> None:
    again = build_index(changed(small, out=tmp_path / "index", buffer=10**5), model)
    assert small.out
    assert digests(again) == digests(small.out)


def test_small_pieces_choose_the_same_examples(small: IndexConfig, model: LanguageModel, tmp_path: Path) -> None:
    cut = FeatureIndex(build_index(changed(small, out=tmp_path / "index", buffer=100), model))
    assert small.out
    whole = FeatureIndex(small.out)
    for latent in range(D_SAE):
        assert [e.token for e in cut.examples(latent)] == [e.token for e in whole.examples(latent)]


def test_another_seed_draws_other_examples_but_the_same_largest_ones(
    small: IndexConfig, model: LanguageModel, tmp_path: Path
) -> None:
    other = FeatureIndex(build_index(changed(small, out=tmp_path / "index", seed=1), model))
    assert small.out
    first = FeatureIndex(small.out)
    assert [e.token for e in other.examples(9, 0)] == [e.token for e in first.examples(9, 0)]
    drawn = [[e.token for e in index.examples(9) if e.quantile] for index in (other, first)]
    assert drawn[0] != drawn[1]


def test_the_number_of_tokens_is_met_to_within_a_row_whatever_the_batch(
    small: IndexConfig, model: LanguageModel, tmp_path: Path
) -> None:
    assert small.out
    found = FeatureIndex(small.out).summary
    assert 900 <= found["n_tokens"] < 900 + POLICY.context
    again = FeatureIndex(build_index(changed(small, out=tmp_path / "index", batch=3), model)).summary
    assert again["n_tokens"] == found["n_tokens"]


def test_a_finished_index_is_left_alone(
    small: IndexConfig, model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert small.out
    before = small.out.stat().st_ino
    assert build_index(small, model) == small.out
    assert small.out.stat().st_ino == before
    assert "finished" in capsys.readouterr().err


def test_other_settings_are_refused_and_named(small: IndexConfig, model: LanguageModel) -> None:
    with pytest.raises(UserError, match="tokens: 900 → 800"):
        build_index(changed(small, tokens=800), model)


def test_an_index_of_an_earlier_saelab_that_lacks_a_newer_key_is_the_same_index(
    small: IndexConfig, model: LanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert small.out is not None
    old = tmp_path / "index"
    shutil.copytree(small.out, old)
    summary = read_json(summary_path(old))
    assert summary["settings"]["policy"].pop("pad") is False
    write_json(summary_path(old), summary)
    build_index(changed(small, out=old), model)
    assert "finished already" in capsys.readouterr().err


def test_a_stopped_build_goes_on_where_it_was(
    small: IndexConfig, model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = changed(small, out=tmp_path / "index", buffer=700)
    rows_seen: list[int] = []
    real = reading._measured

    def seen(plan, rows):
        rows_seen.append(rows.start.row)
        return real(plan, rows)

    put = collect._put

    def stops_in_the_third_batch(*arguments):
        mark = put(*arguments)
        if len(rows_seen) == 3:
            raise KeyboardInterrupt  # the batch is in the files already
        return mark

    monkeypatch.setattr(reading, "_measured", seen)
    monkeypatch.setattr(collect, "_put", stops_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        build_index(settings, model)
    assert not (tmp_path / "index").exists()
    rows_seen.clear()
    monkeypatch.setattr(collect, "_put", put)
    resumed = build_index(settings, model)
    assert rows_seen[0] > 0
    uninterrupted = build_index(changed(settings, out=tmp_path / "other"), model)
    assert digests(resumed) == digests(uninterrupted)


def test_a_disk_without_room_is_refused_before_the_pass(
    config: IndexConfig, model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    with pytest.raises(UserError, match="GB free"):
        build_index(changed(config, out=tmp_path / "index"), model)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_beside_a_finished_index(small: IndexConfig) -> None:
    assert small.out
    assert [path.name for path in small.out.parent.iterdir() if path.is_dir()] == ["index"]


@pytest.mark.parametrize("tokens", [400, 4000])
def test_memory_does_not_grow_with_the_tokens(
    config: IndexConfig, model: LanguageModel, tmp_path: Path, tokens: int
) -> None:
    plan = Plan.resolve(changed(config, tokens=tokens, buffer=100, out=tmp_path / "index"), model)
    spill = Spill(tmp_path / "spill", plan)
    collect.collect(spill, Axis())
    assert sum(len(piece.keys) for piece in spill.activations.pieces()) > 3 * tokens
    assert spill.activations.most_held <= 100
    assert spill.pairs.runs.most_held <= 100


def test_a_corpus_that_was_not_recorded_must_be_given(config: IndexConfig, model: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"corpus\.source"):
        build_index(changed(config, corpus=None), model)


def test_the_runs_own_text_is_indexed_where_none_is_given(
    random_run: tuple[Path, Dictionary], stories: CorpusConfig, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(random_run[0], tmp_path / "run"))
    write_text(RunPaths(run).config, f"corpus: {{source: {stories.source}}}\n")
    assert Plan.resolve(IndexConfig(run=run)).corpus == stories


def test_a_run_on_harvested_activations_has_their_text(
    random_run: tuple[Path, Dictionary], stories: CorpusConfig, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(random_run[0], tmp_path / "run"))
    harvested = tmp_path / "activations"
    Manifest(
        saelab_version="0", finished=True, model="tiny", model_revision=None, model_fingerprint="", sites={},
        tokenizer_fingerprint="", config=HarvestConfig(corpus=stories), n_tokens=0, n_kept=0,
        next=CorpusPlace(document=0, token=0, row=0), shards=[],
    ).save(harvested)  # fmt: skip
    write_text(RunPaths(run).config, f"activations: {harvested}\n")
    assert Plan.resolve(IndexConfig(run=run)).corpus == stories


def test_a_disk_that_fills_on_the_way_is_one_sentence(
    config: IndexConfig, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(collect, "_put", full)
    out = config.run / "elsewhere"
    with pytest.raises(UserError, match="the disk is full"):
        build_index(changed(config, out=out), model)
    assert not out.exists()


def test_another_model_is_refused(config: IndexConfig, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "fingerprint", "0" * 64)
    with pytest.raises(UserError, match="are not those that the dictionary was trained on"):
        build_index(changed(config, out=config.run / "elsewhere"), model)


def test_directions_of_attention_heads_have_no_logits(
    config: IndexConfig, model: LanguageModel, make_dictionary: Callable[..., tuple[Path, Dictionary]]
) -> None:
    run, _ = make_dictionary("blocks.1.attn.z.head1")
    index = FeatureIndex(build_index(changed(config, **SMALL, run=run), model))
    assert index.summary["has_logits"] is False
    assert "residual stream" in index.summary["why_no_logits"]
    assert index.logits(0) == ([], [])
    assert len(index.neighbours(0)) == 10


def test_dead_latents_have_a_row_and_no_examples(small: IndexConfig) -> None:
    assert small.out
    index = FeatureIndex(small.out)
    assert index.latent(7).n_active == 0
    assert index.latent(7).top_tokens == []
    assert index.examples(7) == []


def test_labels_are_scored_where_the_corpus_has_them(
    config: IndexConfig, model: LanguageModel, random_run: tuple[Path, Dictionary], tmp_path: Path
) -> None:
    corpus = CorpusConfig(source="microworld")
    index = FeatureIndex(
        build_index(changed(config, **SMALL, corpus=corpus, out=tmp_path / "index", buffer=400), model)
    )
    site = Site.parse(random_run[1].site)
    rows = next(pack(corpus, model.tokenizer, POLICY, rows=index.summary["n_positions"] // POLICY.context))  # pyright: ignore[reportArgumentType]
    x = model.activations(rows.ids, [site])[site][rows.keep]
    codes = random_run[1].encode(x).to_dense().numpy()
    labels = label_rows(rows, corpus, model.tokenizer)[rows.keep].numpy()  # pyright: ignore[reportArgumentType]
    names = index.summary["labels"]
    for latent in (0, 9, 20):
        best = _best_f1(codes[:, latent], labels)
        found = index.labels(latent)
        assert [score.f1 for score in found] == pytest.approx(sorted(best, reverse=True)[: len(found)], rel=1e-5)
        for score in found:
            on = codes[:, latent] > score.threshold
            truth = labels[:, names.index(score.label)]
            assert score.precision == pytest.approx((on & truth).sum() / on.sum(), rel=1e-5)
            assert score.recall == pytest.approx((on & truth).sum() / truth.sum(), rel=1e-5)
    label = index.labels(9)[0].label
    assert 9 in [hit.latent for hit in index.search_label(label)]


def _best_f1(codes: np.ndarray, labels: np.ndarray) -> list[float]:
    scores = []
    for label in labels.T:
        thresholds = [codes > quarter / 4 * codes.max() for quarter in range(4)]
        scores.append(max(2 * (on & label).sum() / max(on.sum() + label.sum(), 1) for on in thresholds))
    return scores


def test_a_thin_sample_of_rows_is_counted_for_coactivation(
    small: IndexConfig, model: LanguageModel, tmp_path: Path
) -> None:
    thin = FeatureIndex(build_index(changed(small, out=tmp_path / "thin", coactivation_pairs=4_000), model))
    # 900 tokens × 4² pairs / 4,000 → every fourth row of 31 kept tokens (position 0 and separators are left out)
    assert 0 < thin.summary["coactivation_tokens"] <= thin.summary["n_tokens"] / 4 + POLICY.context
    none = FeatureIndex(build_index(changed(small, out=tmp_path / "none", coactivation_pairs=0), model))
    assert none.summary["coactivation_tokens"] == 0
    assert none.coactive(9) == []


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        (("blocks.1.mlp_out",), None),  # is added to the residual stream
        (("blocks.1.attn.z.head1",), "blocks.1.attn.z.head1 does not lie in the residual stream"),
        (("blocks.1.mlp_out", "blocks.1.attn_out"), "writes to 2 sites"),
    ],
)
def test_a_transcoder_is_indexed_by_what_it_reads(
    make_transcoder: Callable[..., Path], stories: CorpusConfig, model: LanguageModel, targets: tuple[str, ...],
    reason: str | None, config: IndexConfig, tmp_path: Path,
) -> None:  # fmt: skip
    settings = changed(config, **SMALL, run=make_transcoder(targets), out=tmp_path / "index")
    index = FeatureIndex(build_index(settings, model))
    plain = FeatureIndex(build_index(changed(config, **SMALL, out=tmp_path / "plain"), model))
    assert [e.token for e in index.examples(3)] == [e.token for e in plain.examples(3)]
    assert index.summary["has_logits"] == (reason is None)
    assert reason is None or reason in index.summary["why_no_logits"]
    assert bool(index.logits(3).promoted) == (reason is None)
    assert len(index.neighbours(3)) == 10
