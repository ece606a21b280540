"""`saelab evaluate --suite steering` on a run on disk."""

import shutil
from pathlib import Path

import pytest
import torch

from saelab.config import to_yaml
from saelab.corpora import TokenPolicy
from saelab.disk import RunPaths, write_text
from saelab.errors import UserError
from saelab.evaluation.config import EvaluateConfig
from saelab.evaluation.evaluate import evaluate
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import load_report
from saelab.evaluation.steering.report import SteeringReport
from saelab.evaluation.steering.suite import Steering
from saelab.models import LanguageModel
from saelab.training import TrainConfig

POLICY = TokenPolicy(context=32)
STEERING = {"latents": 4, "contexts": 3, "strengths": [1.0], "lengths": [1.0], "longest": 20}


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path, random_subject) -> Path:
    language_model = LanguageModel.load(tiny_model, device="cpu")
    dictionary = random_subject("blocks.0.resid_post").dictionary
    update = {
        "model": str(tiny_model), "model_fingerprint": language_model.fingerprint, "policy": POLICY.model_dump(),
        "tokenizer_fingerprint": language_model.tokenizer_fingerprint,
    }  # fmt: skip
    object.__setattr__(dictionary, "config", dictionary.config.model_copy(update=update))
    paths = RunPaths(tmp_path / "run")
    dictionary.save(paths.dictionary, golden=torch.randn(8, 16))
    settings = {"model": str(tiny_model), "site": "blocks.0.resid_post", "policy": POLICY, "sae": {"d_sae": 32, "k": 4}}
    write_text(paths.config, to_yaml(TrainConfig.model_validate(settings)))
    return paths.root


def settings(run: Path, **changes) -> EvaluateConfig:
    base = {"runs": [run], "suites": ["steering"], "tokens": 1280, "resamples": 10, "device": "cpu"}
    return EvaluateConfig.model_validate({**base, "steering": STEERING, **changes})


def test_a_report_is_made_once_and_belongs_to_its_settings(run: Path, monkeypatch: pytest.MonkeyPatch):
    (made,) = evaluate(settings(run))
    assert isinstance(made, SteeringReport)
    assert (made.metrics.sampled, made.metrics.contexts) == (4, 3)
    assert load_report(SteeringReport, RunPaths(run).report("steering")) == made
    monkeypatch.setattr("saelab.evaluation.evaluate.measured", None)  # which would be called to measure again
    assert evaluate(settings(run)) == [made]
    with pytest.raises(UserError, match=r"settings.steering.contexts: 3 → 4\); add --overwrite"):
        evaluate(settings(run, steering={**STEERING, "contexts": 4}))


def test_other_suites_do_not_care_how_latents_are_steered(run: Path):
    sparsity = evaluate(settings(run, suites=["sparsity"]))
    assert evaluate(settings(run, suites=["sparsity"], steering={"contexts": 9})) == sparsity


def test_an_interruption_keeps_the_reports_that_are_finished(run: Path, monkeypatch: pytest.MonkeyPatch):
    other = run.parent / "other"
    shutil.copytree(run, other)
    steer = Steering.report

    def stopped(reader: Steering, about: Provenance) -> SteeringReport:
        if reader.subject.name == "other":
            raise KeyboardInterrupt
        return steer(reader, about)

    monkeypatch.setattr(Steering, "report", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings(run, runs=[run, other]))
    first = load_report(SteeringReport, RunPaths(run).report("steering"))
    assert not RunPaths(other).report("steering").exists()
    monkeypatch.setattr(Steering, "report", steer)
    again = evaluate(settings(run, runs=[run, other]))
    assert again[0] == first  # read, not made again
    assert isinstance(again[1], SteeringReport)
    assert again[1].outcomes == first.outcomes  # the same dictionary under another name
