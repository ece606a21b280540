"""`calibrate` on runs on disk: estimated and counted on different tokens, written in one step, and undone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saelab.activations import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.config import to_yaml
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.dictionaries.artifact import load
from saelab.dictionaries.config import (
    ActivationAffinity,
    Allocation,
    DictionaryConfig,
    FeatureChoice,
    JumpRelu,
    MutualChoice,
    TokenChoice,
)
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, write_text
from saelab.errors import UserError
from saelab.evaluation import calibrate as stage
from saelab.evaluation.config import CalibrateConfig, EvaluateConfig
from saelab.evaluation.evaluate import evaluate
from saelab.evaluation.report import SparsityReport
from saelab.models import LanguageModel
from saelab.training import TrainConfig

SITE, POLICY = "blocks.0.resid_post", TokenPolicy(context=32)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LanguageModel:
    return LanguageModel.load(tiny_model, device="cpu")


@pytest.fixture
def make_run(tmp_path: Path, model: LanguageModel):
    """A run with a random dictionary whose thresholds keep too much."""

    def build(allocation: Allocation) -> Path:
        generator = torch.Generator().manual_seed(0)
        weights = torch.nn.functional.normalize(torch.randn(24, 16, generator=generator), dim=1)
        rule = "topk" if isinstance(allocation, TokenChoice) else "threshold"
        config = DictionaryConfig(
            architecture=allocation.kind, d_in=16, d_sae=24, k=3, affinity=ActivationAffinity(),
            allocation=allocation, rule=rule, scale=30.0, site=SITE, model=model.name,
            model_fingerprint=model.fingerprint, tokenizer_fingerprint=model.tokenizer_fingerprint or "",
            policy=POLICY.model_dump(mode="json"), tokens_trained=0, saelab_version="0",
        )  # fmt: skip
        threshold = torch.full((24,), 0.05) if rule == "threshold" else torch.empty(0)
        dictionary = Dictionary(weights, weights.clone(), torch.zeros(24), torch.zeros(16), threshold, config)
        run = RunPaths(tmp_path / "run")
        dictionary.save(run.dictionary, golden=torch.randn(8, 16, generator=generator))
        settings = {"model": model.name, "site": SITE, "sae": {"d_sae": 24, "k": 3}, "policy": POLICY}
        write_text(run.config, to_yaml(TrainConfig.model_validate(settings)))
        return run.root

    return build


def config(run: Path, **changes) -> CalibrateConfig:
    return CalibrateConfig.model_validate({"run": run, "tokens": 2000, "device": "cpu", **changes})


@pytest.mark.parametrize(
    ("allocation", "method"),
    [(MutualChoice(), "factor"), (FeatureChoice(), "factor"), (FeatureChoice(budgets="uniform"), "latent")],
)
def test_the_budget_is_kept_on_other_tokens(make_run, allocation: Allocation, method: str):
    run = make_run(allocation)
    found = stage.calibrate(config(run, method=method))
    assert (found.tokens, found.checked) == (2000, 500)
    assert found.before > 6
    assert found.after == pytest.approx(3, rel=0.1)
    assert load(run).threshold.tolist() == pytest.approx([0.05] * 24)  # nothing was written


def test_writing_and_restoring(make_run):
    run = make_run(MutualChoice())
    before = load(run)
    new = stage.calibrate(config(run)).dictionary
    stage.write(run, new)
    assert torch.equal(load(run).threshold, new.threshold)
    stage.write(run, replace(new, threshold=2 * new.threshold))  # a second time: training's are still those kept
    stage.restore(run)
    after = load(run)
    assert torch.equal(after.threshold, before.threshold)
    assert after.config == before.config  # the checksum of the weights included
    with pytest.raises(UserError, match="nothing to restore"):
        stage.restore(run)


def test_reports_of_the_old_thresholds_are_stale(make_run):
    run = make_run(MutualChoice())
    settings = EvaluateConfig.model_validate({"runs": [run], "suites": ["sparsity"], "tokens": 320, "device": "cpu"})
    (old,) = evaluate(settings)
    stage.write(run, stage.calibrate(config(run)).dictionary)
    with pytest.raises(UserError, match="dictionary_sha256"):
        evaluate(settings)
    (new,) = evaluate(settings.model_copy(update={"overwrite": True}))
    assert isinstance(old, SparsityReport)
    assert isinstance(new, SparsityReport)
    assert new.about.dictionary_sha256 != old.about.dictionary_sha256
    assert old.metrics.l0 != pytest.approx(3, rel=0.2)
    assert new.metrics.l0 == pytest.approx(3, rel=0.2)


def test_harvested_activations_do(make_run, model, tmp_path):
    def harvested(name: str, **changes) -> Path:
        settings = {"sites": (SITE,), "policy": POLICY, "tokens": 640, "dtype": "fp32", "device": "cpu", **changes}
        made = HarvestConfig.model_validate({"model": model.name, "corpus": CorpusConfig(seed=3), **settings})
        return harvest(made, tmp_path / name, model=model)

    run = make_run(MutualChoice())
    found = stage.calibrate(config(run, activations=harvested("a")))
    assert found.tokens + found.checked < 640  # fewer than wanted: all there are, split four to one
    assert found.tokens == pytest.approx(4 * found.checked, abs=4)
    assert found.after == pytest.approx(3, rel=0.15)
    with pytest.raises(UserError, match="another token policy"):
        stage.calibrate(config(run, activations=harvested("b", policy=TokenPolicy(context=16))))
    with pytest.raises(UserError, match="no activations of site"):
        stage.calibrate(config(run, activations=harvested("c", sites=("blocks.1.resid_post",))))


@pytest.mark.parametrize(
    ("allocation", "method", "complaint"),
    [
        (TokenChoice(), "factor", "has no thresholds"),
        (JumpRelu(), "factor", "were learnt with its weights"),
        (MutualChoice(), "latent", "one threshold for all latents"),
    ],
)
def test_what_can_not_be_calibrated_says_why(make_run, allocation: Allocation, method: str, complaint: str):
    with pytest.raises(UserError, match=complaint):
        stage.calibrate(config(make_run(allocation), method=method))
