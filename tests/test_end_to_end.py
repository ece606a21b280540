"""The whole road on small settings, as a person walks it: every stage through its command, twice."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import saelab as lab
from saelab.disk import RunPaths, bundled
from saelab.features.index import FeatureIndex

SITE = "blocks.0.resid_post"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every finished file below `folder`."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def walk(saelab):
    """Run a command that must succeed; give back what it printed."""

    def run(*words: object) -> str:
        code, out, err = saelab(*words)
        assert code == 0, err
        return out

    return run


def test_text_to_steered_text(walk, tiny_model: Path, tmp_path: Path) -> None:
    activations, run = tmp_path / "activations", tmp_path / "run"
    stages = [
        ["harvest", "--model", tiny_model, "--sites", f"[{SITE}, blocks.1.mlp_out]", "--policy.context", 32,
         "--tokens", 4096, "--shard_tokens", 1024, "--dtype", "fp32", "--out", activations],
        ["train", "--activations", activations, "--site", SITE, "--sae.d_sae", 64, "--sae.k", 4,
         "--tokens", 8192, "--batch", 256, "--buffer", 1024, "--out", run],
        ["evaluate", run, "--tokens", 2048, "--mean_tokens", 256, "--resamples", 20],
        ["index", run, "--tokens", 2048],
    ]  # fmt: skip
    for stage in stages:
        walk(*stage)

    sae = lab.load(run)
    assert (sae.d_in, sae.d_sae, sae.site) == (16, 64, SITE)
    codes = sae.encode(torch.randn(5, 16))
    assert int(codes.counts.max()) <= 4

    report = json.loads(RunPaths(run).report("fidelity").read_text())
    assert 0 < report["metrics"]["fvu"] < 1  # better than the mean activation
    assert 0 < report["metrics"]["l0"] <= 4

    index = FeatureIndex(RunPaths(run).features)
    assert index.d_sae == 64
    busiest = index.latents(sort="n_active", descending=True, limit=1).to_pylist()[0]
    examples = index.examples(busiest["latent"], quantile=0)
    assert examples[0].value == pytest.approx(busiest["max_activation"])

    steered = walk(
        "steer", run, "--latent", busiest["latent"], "--strength", 2, "--prompt", "Tom", "--max-new-tokens", 8
    )
    assert "as it is" in steered
    assert "add 2" in steered
    assert "golden" in walk("inspect", run)
    assert "checksum agrees" in walk("inspect", activations, "--verify")

    before = snapshot(tmp_path)
    for stage in stages:
        walk(*stage)
    assert snapshot(tmp_path) == before  # everything was finished, so nothing was made again


def test_a_run_replays_from_its_config(walk, tiny_model: Path, tmp_path: Path) -> None:
    small = ["--sae.d_sae", 32, "--sae.k", 4, "--tokens", 512, "--batch", 128, "--buffer", 256, "--policy.context", 32]
    walk("train", "--model", tiny_model, "--site", SITE, *small, "--seed", 3, "--out", tmp_path / "first")
    walk("train", RunPaths(tmp_path / "first").config, "--out", tmp_path / "second")
    first, second = (snapshot(RunPaths(tmp_path / name).dictionary) for name in ("first", "second"))
    assert first == second


def test_demo(walk, saelab, tmp_path: Path) -> None:
    run = tmp_path / "demo"
    words = ["demo", "--no-browse", "--out", run, "--sae.d_sae", 64, "--tokens", 4096, "--batch", 512, "--buffer", 2048]
    words += ["--evaluate-tokens", 2048, "--index-tokens", 2048]
    code, _, err = saelab(*words)
    assert code == 0, err
    assert all(f"[{n}/3] saelab {stage} " in err for n, stage in enumerate(["train", "evaluate", "index"], 1))
    assert "loss recovered" in err
    assert yaml.safe_load(RunPaths(run).config.read_text())["sae"]["d_sae"] == 64

    before = snapshot(run)
    walk(*words)
    assert snapshot(run) == before


def test_demo_without_its_model_says_so(saelab, monkeypatch, tmp_path: Path) -> None:
    shutil.copytree(bundled("configs"), tmp_path / "configs")
    monkeypatch.setattr("saelab.cli.demo.bundled", lambda name: tmp_path / name)
    code, _, err = saelab("demo", "--no-browse")
    assert code == 2
    assert "not complete" in err
