"""Several trainings, each a process, on one directory of activations at the same time."""

from pathlib import Path
from typing import Any

import pytest

from saelab.activations.config import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.config import load_config
from saelab.disk import RunPaths
from saelab.disk.layout import DictionaryPaths
from saelab.training import TrainConfig, train_all
from tests.forks import PROCESSES


def train_one(settings: dict[str, Any], out: Path) -> None:
    train_all({out: load_config(TrainConfig, None, settings)})


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_trainings_at_once_end_as_each_does_alone(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, dtype: str
) -> None:
    source = {
        "model": str(tiny_model), "sites": ["blocks.0.resid_post", "blocks.1.mlp_out"], "corpus.source": str(tiny_text),
        "policy.context": 32, "tokens": 6400, "shard_tokens": 1024, "batch": 8, "dtype": dtype, "device": "cpu",
    }  # fmt: skip
    activations = harvest(load_config(HarvestConfig, None, source), tmp_path / "activations")
    common = {
        "activations": str(activations), "device": "cpu", "policy.context": 32, "sae.d_sae": 64, "sae.k": 4,
        "tokens": 64 * 40, "batch": 64, "buffer": 512, "checkpoint_every": 64 * 10,
    }  # fmt: skip
    runs = {name: common | {"site": site} for name, site in zip("ab", source["sites"], strict=True)}
    processes = [PROCESSES.Process(target=train_one, args=(runs[name], tmp_path / name)) for name in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for name, settings in runs.items():
        train_one(settings, tmp_path / "alone" / name)
        weights = [
            DictionaryPaths(RunPaths(run).dictionary).weights for run in (tmp_path / name, tmp_path / "alone" / name)
        ]
        assert weights[0].read_bytes() == weights[1].read_bytes()
