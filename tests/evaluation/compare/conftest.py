"""Runs as training leaves them, evaluated on the microworld's held-out text by a tiny GPT-2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from saelab.config import to_yaml
from saelab.corpora import TokenPolicy
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, TokenChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths, write_text
from saelab.evaluation.config import EvaluateConfig
from saelab.evaluation.evaluate import evaluate
from saelab.models import LanguageModel
from saelab.training import TrainConfig

POLICY = TokenPolicy(context=32)
SETTINGS: dict[str, Any] = {"tokens": 640, "resamples": 20, "mean_tokens": 100, "device": "cpu"}

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def make_run(tiny_model: Path) -> MakeRun:
    """A run with a random dictionary that keeps k of its 24 latents."""
    model = LanguageModel.load(tiny_model, device="cpu")

    def build(
        path: Path, k: int = 3, seed: int = 0, architecture: str = "topk", site: str = "blocks.0.resid_post"
    ) -> Path:
        generator = torch.Generator().manual_seed(seed)
        weights = torch.nn.functional.normalize(torch.randn(24, 16, generator=generator), dim=1)
        config = DictionaryConfig(
            architecture=architecture, d_in=16, d_sae=24, k=k, affinity=ActivationAffinity(), allocation=TokenChoice(),
            rule="topk", scale=1.0, site=site, model=model.name, model_fingerprint=model.fingerprint,
            tokenizer_fingerprint=model.tokenizer_fingerprint or "", policy=POLICY.model_dump(), tokens_trained=0,
            saelab_version="0",
        )  # fmt: skip
        dictionary = Dictionary(weights, weights.clone(), torch.zeros(24), torch.zeros(16), torch.zeros(0), config)
        dictionary.save(RunPaths(path).dictionary, golden=torch.randn(8, 16, generator=generator))
        beta = {"topk": 0.9, "other": 0.8}[architecture]  # anything that makes their settings differ
        values = {
            "model": model.name, "site": site, "sae": {"d_sae": 24, "k": k}, "policy": POLICY, "seed": seed,
            "optimizer": {"beta1": beta},
        }  # fmt: skip
        write_text(RunPaths(path).config, to_yaml(TrainConfig.model_validate(values)))
        return path

    return build


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> dict[str, Path]:
    """Two architectures at several k, one setting with two seeds, and one run at another site."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "topk-2": make_run(folder / "topk-2", 2),
        "topk-8": make_run(folder / "topk-8", 8),
        "topk-8-again": make_run(folder / "topk-8-again", 8, seed=1),
        "other-4": make_run(folder / "other-4", 4, seed=2, architecture="other"),
        "elsewhere": make_run(folder / "elsewhere", 4, site="blocks.1.resid_post"),
    }
    evaluate(EvaluateConfig(runs=list(made.values()), suites=["fidelity", "sparsity"], **SETTINGS))
    return made
