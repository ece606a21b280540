"""`evaluate` on runs on disk: a tiny GPT-2 with a byte tokenizer, and the microworld's held-out text."""

from pathlib import Path

import pytest

from saelab.activations import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.config import to_yaml
from saelab.corpora import CorpusConfig
from saelab.disk import RunPaths, sha256, write_text
from saelab.disk.tensors import read_tensors
from saelab.errors import UserError
from saelab.evaluation.config import EvaluateConfig
from saelab.evaluation.evaluate import evaluate
from saelab.evaluation.report import FidelityReport, load_report
from saelab.evaluation.together.report import TogetherReport
from saelab.evaluation.together.run import evaluate_together
from saelab.models import LanguageModel
from saelab.training import TrainConfig
from tests.evaluation.runs import POLICY, make_run

SETTINGS = {"tokens": 640, "resamples": 20, "mean_tokens": 100, "device": "cpu"}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LanguageModel:
    return LanguageModel.load(tiny_model, device="cpu")


@pytest.fixture
def runs(tmp_path: Path, model: LanguageModel) -> list[Path]:
    sites = ["blocks.0.resid_post", "blocks.1.mlp_out"]
    return [make_run(tmp_path / f"run{i}", model, site, seed=i) for i, site in enumerate(sites)]


def test_reports_stand_beside_each_run(runs):
    reports = evaluate(EvaluateConfig(runs=runs, **SETTINGS))
    assert [(r.about.dictionary, r.suite) for r in reports] == [
        ("run0", "fidelity"), ("run0", "sparsity"), ("run1", "fidelity"), ("run1", "sparsity"),
    ]  # fmt: skip
    assert load_report(FidelityReport, RunPaths(runs[1]).report("fidelity")) == reports[2]


def test_reports_state_their_conditions(runs, tiny_model):
    about = evaluate(EvaluateConfig(runs=runs[:1], **SETTINGS))[0].about
    assert about.positions == 640
    assert about.excluded >= 20  # the first position of each of twenty rows, and separators
    assert about.tokens == about.positions - about.excluded
    assert 100 <= about.mean_tokens < 132
    assert about.corpus == CorpusConfig(split="test").model_dump(mode="json")
    assert about.token_policy == POLICY.model_dump(mode="json")
    assert (about.model, about.dtype, about.site) == (str(tiny_model), "float32", "blocks.0.resid_post")
    assert about.selection_rule == "top 3 of each token"


def test_numbers_do_not_depend_on_the_batch(runs):
    reports = [
        evaluate(EvaluateConfig(runs=runs[:1], batch_rows=rows, overwrite=True, **SETTINGS))[0] for rows in (3, 7, 64)
    ]
    assert [r.about.tokens for r in reports] == [reports[0].about.tokens] * 3
    numbers = [r.metrics.model_dump(exclude={"splice_error"}) for r in reports]
    for other in numbers[1:]:
        assert other == pytest.approx(numbers[0], rel=1e-5, abs=1e-7)


def test_finished_reports_are_read_not_made_again(runs, monkeypatch):
    first = evaluate(EvaluateConfig(runs=runs, **SETTINGS))
    monkeypatch.setattr(LanguageModel, "load", lambda *args, **kwargs: pytest.fail("the model was loaded again"))
    assert evaluate(EvaluateConfig(runs=runs, **SETTINGS)) == first


def test_only_what_is_missing_is_made(runs):
    first = evaluate(EvaluateConfig(runs=runs[:1], **SETTINGS))
    both = evaluate(EvaluateConfig(runs=runs, **SETTINGS))
    assert both[:2] == first
    assert both[2].about.dictionary == "run1"


def test_reports_of_other_settings_are_not_overwritten_unasked(runs):
    evaluate(EvaluateConfig(runs=runs[:1], **SETTINGS))
    other = {**SETTINGS, "tokens": 320}
    with pytest.raises(UserError, match=r"fidelity.json was made with other settings \(settings.tokens: 640 → 320\)"):
        evaluate(EvaluateConfig(runs=runs[:1], **other))
    assert evaluate(EvaluateConfig(runs=runs[:1], overwrite=True, **other))[0].about.positions == 320


def test_the_held_out_split_is_read_whatever_is_asked(runs):
    config = EvaluateConfig(runs=runs[:1], corpus=CorpusConfig(split="train", seed=3), **SETTINGS)
    assert evaluate(config)[0].about.corpus == CorpusConfig(split="test", seed=3).model_dump(mode="json")


def test_a_model_at_hand_is_used(runs, model, monkeypatch):
    monkeypatch.setattr(LanguageModel, "load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    assert len(evaluate(EvaluateConfig(runs=runs, **SETTINGS), model)) == 4


def test_a_dictionary_without_a_run_needs_a_corpus(runs):
    RunPaths(runs[0]).config.unlink()
    with pytest.raises(UserError, match="records no corpus"):
        evaluate(EvaluateConfig(runs=runs[:1], **SETTINGS))
    evaluate(EvaluateConfig(runs=runs[:1], corpus=CorpusConfig(), **SETTINGS))


def test_the_corpus_of_harvested_activations_is_that_of_their_manifest(runs, tiny_model, tmp_path):
    harvest_config = HarvestConfig(
        model=str(tiny_model), sites=("blocks.0.resid_post",), corpus=CorpusConfig(seed=9), policy=POLICY, tokens=64,
        device="cpu",
    )  # fmt: skip
    harvest(harvest_config, tmp_path / "activations")
    write_text(RunPaths(runs[0]).config, f"activations: {tmp_path / 'activations'}\n")
    corpus = evaluate(EvaluateConfig(runs=runs[:1], **SETTINGS))[0].about.corpus
    assert corpus == CorpusConfig(seed=9, split="test").model_dump(mode="json")


def test_another_precision_than_in_training_is_stated(runs):
    assert evaluate(EvaluateConfig(runs=runs[:1], dtype="bfloat16", **SETTINGS))[0].about.dtype == "bfloat16"


def test_other_weights_than_in_training_are_refused(runs, tiny_model, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: 1.5 * tensor for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="are not those that the dictionary was trained on"):
        evaluate(EvaluateConfig(runs=runs[:1], model=str(other), **SETTINGS))


def test_a_set_of_runs_is_one_report_in_the_first_folder(runs, model):
    config = EvaluateConfig(runs=runs, together=True, **SETTINGS)
    report = evaluate_together(config, model)
    assert [about.dictionary for about in report.about] == ["run0", "run1"]
    assert report.about[0].tokens == report.about[1].tokens > 500
    assert load_report(TogetherReport, RunPaths(runs[0]).report("together")) == report
    assert not RunPaths(runs[1]).report("together").exists()
    assert evaluate_together(config) == report  # read, not made again
    with pytest.raises(UserError, match="was made of run0, run1.*--overwrite"):
        evaluate_together(config.model_copy(update={"seed": 1}))


def test_runs_of_other_text_are_no_set(runs, model, tmp_path):
    config = EvaluateConfig(runs=runs, together=True, **SETTINGS)
    settings = TrainConfig.model_validate(
        {"model": model.name, "site": "blocks.1.mlp_out", "sae": {"d_sae": 24, "k": 3}, "policy": POLICY,
         "corpus": {"seed": 7}}
    )  # fmt: skip
    write_text(RunPaths(runs[1]).config, to_yaml(settings))
    with pytest.raises(UserError, match=r"run0 and run1 can't be substituted together: they differ in corpus.seed"):
        evaluate_together(config, model)


def test_a_set_is_at_least_two(runs):
    with pytest.raises(ValueError, match="at least two runs"):
        EvaluateConfig(runs=runs[:1], together=True, **SETTINGS)


def test_the_suites_know_nothing_of_sets(runs):
    with pytest.raises(UserError, match="evaluate_together"):
        evaluate(EvaluateConfig(runs=runs, together=True, **SETTINGS))


def test_the_sums_behind_a_report_lie_beside_it(runs, model):
    report = evaluate(EvaluateConfig(runs=runs[:1], suites=["fidelity"], **SETTINGS), model)[0]
    path = RunPaths(runs[0]).documents("fidelity")
    assert isinstance(report, FidelityReport)
    assert report.documents_sha256 == sha256(path)
    sums = read_tensors(path)
    assert len(sums["document"]) == report.about.documents
    assert float(sums["ce_sae"].sum() / sums["predictions"].sum()) == pytest.approx(report.metrics.ce_sae)


def test_the_command_substitutes_a_set(runs, saelab):
    words = ["--tokens", 640, "--mean_tokens", 100, "--resamples", 20, "--device", "cpu"]
    done = saelab("evaluate", *runs, "--together", "--table", "markdown", *words)
    assert (done.code, "run1 alone" in done.out) == (0, True)
    assert saelab("evaluate", *runs, "--together", "--suite", "fidelity", *words).code == 2
    assert saelab("evaluate", runs[0], runs[0], "--together", *words).code == 2
