"""The road of the demo by two processes, as people type it, beside the road of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from saelab.disk import ActivationPaths, RunPaths, read_jsonl
from saelab.disk.layout import DictionaryPaths
from saelab.disk.tensors import read_tensors
from tests.forks import Torchrun

pytestmark = pytest.mark.distributed

SITE = "blocks.2.resid_post"
STEPS = 10
CLOSE = 1e-3  # float32: Adam turns the rounding of small gradients into steps (in float64: tests/training)
CLOCKS = ("dictionary", "seconds", "created")


def saelab(folder: Path, size: int, *words: object) -> None:
    """The command, with one process or with torchrun."""
    if size > 1:
        code, said = Torchrun(folder / "said", size, *words).end()
    else:
        command = [sys.executable, "-m", "saelab", *map(str, words)]
        alone = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        code, said = alone.returncode, alone.stdout + alone.stderr
    assert code == 0, said


@pytest.fixture(scope="module")
def harvests(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By number of processes."""
    folder = tmp_path_factory.mktemp("harvests")
    found = {size: folder / str(size) for size in (1, 2)}
    for size, out in found.items():
        saelab(
            folder, size, "harvest", "--sites", f"[{SITE}]", "--tokens", "24k", "--shard_tokens", "8k", "--device",
            "cpu", "--out", out,
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def runs(harvests: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By layout."""
    folder = tmp_path_factory.mktemp("runs")
    layouts = {"one": (), "latent": ("--parallel.latent", 2), "data": ("--parallel.data", 2)}
    for name, layout in layouts.items():
        saelab(
            folder, len(layout) or 1, "train", "configs/demo.yaml", "--activations", harvests[1], "--sae.d_sae", 512,
            "--tokens", 2048 * STEPS, "--buffer", "8k", "--log_every", 5, "--device", "cpu", *layout,
            "--out", folder / name,
        )  # fmt: skip
    return {name: folder / name for name in layouts}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_the_harvest_is_the_same_to_the_byte(harvests: dict[int, Path]) -> None:
    one, two = files(harvests[1]), files(harvests[2])
    assert one == two
    assert ActivationPaths(harvests[1]).manifest.name in one


@pytest.mark.parametrize("layout", ["latent", "data"])
def test_the_dictionary_is_the_same(runs: dict[str, Path], layout: str) -> None:
    ours, theirs = (read_tensors(DictionaryPaths(RunPaths(runs[name]).dictionary).weights) for name in (layout, "one"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=CLOSE, atol=CLOSE)
    assert RunPaths(runs[layout]).config.read_bytes() == RunPaths(runs["one"]).config.read_bytes()
    lines, expected = (read_jsonl(RunPaths(runs[name]).metrics) for name in (layout, "one"))
    assert [(line["step"], line["tokens"], line["dead"]) for line in lines] == [(5, 10240, 0), (10, 20480, 0)]
    assert [line["fvu"] for line in lines] == pytest.approx([line["fvu"] for line in expected], rel=1e-4)


def timeless(value: Any) -> Any:
    """A report without clocks and without where its dictionary lies."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in CLOCKS}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def test_reports_and_index_are_the_same_to_the_byte(runs: dict[str, Path], tmp_path: Path) -> None:
    """Of one dictionary, the one that two processes have trained."""
    for size in (1, 2):
        copy = shutil.copytree(runs["latent"], tmp_path / str(size) / "run")
        saelab(tmp_path, size, "evaluate", copy, "--tokens", "4k", "--device", "cpu")
        saelab(tmp_path, size, "index", copy, "--tokens", "8k", "--effect_tokens", "2k", "--device", "cpu")
    one, two = files(tmp_path / "1"), files(tmp_path / "2")
    assert one.keys() == two.keys()
    assert {Path(name).name for name in one} >= {
        "fidelity.json",
        "sparsity.json",
        "examples.parquet",
        "effects.parquet",
    }
    reports = {name for name in one if Path(name).parent.name == "evaluation" and name.endswith(".json")}
    assert {name for name in one if one[name] != two[name]} <= reports
    for name in reports:
        assert timeless(json.loads(one[name])) == timeless(json.loads(two[name]))
