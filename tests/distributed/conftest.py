"""A small training that several processes share: long enough to be killed in, with a checkpoint every 20 steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from saelab.activations import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.config import load_config, to_yaml
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.corpora.microworld import Microworld
from saelab.disk import write_text
from saelab.training.config import TrainConfig

SITE = "blocks.0.resid_post"


@pytest.fixture(scope="session")
def activations(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A harvest of 6,400 tokens."""
    folder = tmp_path_factory.mktemp("activations")
    text = folder / "text.txt"
    text.write_text("\n<|endoftext|>\n".join(Microworld(seed=2).document(i).text for i in range(100)))
    config = HarvestConfig(
        model=str(tiny_model), sites=(SITE,), corpus=CorpusConfig(source=str(text)), policy=TokenPolicy(context=32),
        tokens=6400, shard_tokens=1024, batch=8, dtype="fp32", device="cpu",
    )  # fmt: skip
    return harvest(config, folder / "harvest")


@pytest.fixture(scope="session")
def training(activations: Path) -> TrainConfig:
    """400 steps on it; batches and latents leave rests for 2, 3 and 4 ranks."""
    return load_config(
        TrainConfig, None,
        {
            "activations": str(activations), "site": SITE, "sae.d_sae": 131, "sae.k": 4, "sae.dead_after": 2000,
            "batch": 61, "buffer": 1000, "tokens": 400 * 61, "checkpoint_every": 20 * 61, "device": "cpu",
        },
    )  # fmt: skip


@pytest.fixture(scope="session")
def settings(training: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("settings") / "train.yaml"
    write_text(path, to_yaml(training))
    return path
