"""A whole training run: finished, repeated, interrupted, refused."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import saelab
from saelab.activations.opening import open_source
from saelab.config import load_config, to_yaml
from saelab.dictionaries.calibration import active_per_token
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, MutualChoice
from saelab.disk import RunPaths, read_jsonl
from saelab.disk.tensors import read_tensors
from saelab.errors import UserError
from saelab.training import TrainConfig, train
from saelab.training.run import keeping_its_budget

ARCHITECTURES = [
    {"sae.preset": "topk"},
    {"sae.preset": "mutual-choice", "sae.aux.kind": "aux_zipf", "sae.aux.fit_every": 3},
    {"sae.preset": "feature-choice"},
    {"sae.preset": "gradient"},
    {"sae.preset": "gradient", "sae.allocation.kind": "mutual"},
    {"sae.preset": "gradient", "sae.allocation.kind": "feature"},
    {"sae.preset": "matryoshka", "sae.k_warmup.start": 8},
    {"target": ["blocks.0.mlp_out", "blocks.1.attn.z"]},
]
PENALISED = [
    {"sae.preset": "relu"},
    {"sae.preset": "jumprelu"},
    {"sae.preset": "gated", "target": "blocks.1.mlp_out"},
]


def settings(model: Path, text: Path, **overrides: Any) -> TrainConfig:
    return load_config(
        TrainConfig,
        None,
        {
            "model": str(model), "site": "blocks.0.resid_post", "corpus.source": str(text), "policy.context": 32,
            "sae.d_sae": 64, "sae.k": 4, "sae.dead_after": 512, "tokens": 128 * 30, "batch": 128, "buffer": 1024,
            "checkpoint_every": 128 * 7, "log_every": 5, "optimizer.lr": 1e-3, "device": "cpu",
        }
        | overrides,
    )  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "dictionary" / "dictionary.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def budget_is_kept(sae: saelab.Dictionary, config: TrainConfig) -> bool:
    """Within 5 % of k latents are active on held-out text, or at most k where the rule is the k best."""
    held_out = open_source(None, config.model, config.site, config.corpus.of_split("test"), config.policy, buffer=2048)
    active = active_per_token(sae, [held_out.sample(2048).x])
    return active <= config.sae.k if sae.config.rule == "topk" else abs(active / config.sae.k - 1) < 0.05


@pytest.mark.parametrize("overrides", ARCHITECTURES, ids=lambda o: "-".join(map(str, o.values())))
def test_every_architecture_ends_in_a_dictionary(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    run = train(settings(tiny_model, tiny_text, **overrides), tmp_path / "run")
    sae = saelab.load(run)
    metrics = read_jsonl(RunPaths(run).metrics)
    assert metrics[-1]["step"] == 30
    assert metrics[-1]["fvu"] < metrics[0]["fvu"]
    # Kept matches are k a token on average; those with z ≤ 0 do not count as active.
    assert 0 < metrics[-1]["l0"] <= 4
    assert budget_is_kept(sae, settings(tiny_model, tiny_text, **overrides))
    encodes_one_token(sae)


@pytest.mark.parametrize("overrides", PENALISED, ids=lambda o: str(o["sae.preset"]))
def test_penalised_architectures_end_in_a_dictionary_too(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    config = settings(tiny_model, tiny_text, tokens=128 * 150, **{"optimizer.lr": 5e-3}, **overrides)
    run = train(config, tmp_path / "run")
    metrics = read_jsonl(RunPaths(run).metrics)
    assert metrics[-1]["fvu"] < 1
    assert 4 / 2 < metrics[-1]["l0"] < 4 * 2 < metrics[0]["l0"]  # λ has steered it near k
    assert metrics[-1]["penalty"] > 0
    encodes_one_token(saelab.load(run))


def encodes_one_token(sae: saelab.Dictionary) -> None:
    codes = sae.encode(torch.randn(sae.d_in))
    assert codes.rows == 1
    assert sae.decode(codes).shape == (sae.d_out,)


def test_the_reconstruction_is_learnt(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    config = settings(tiny_model, tiny_text, tokens=128 * 150, **{"optimizer.lr": 5e-3})
    metrics = read_jsonl(RunPaths(train(config, tmp_path / "run")).metrics)
    assert metrics[0]["fvu"] > 0.5
    assert metrics[-1]["fvu"] < 0.35


def test_again_is_already_finished(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    config = settings(tiny_model, tiny_text)
    run = train(config, tmp_path / "run")
    before = (run / "dictionary" / "dictionary.safetensors").stat().st_mtime_ns
    train(config, run)
    assert (run / "dictionary" / "dictionary.safetensors").stat().st_mtime_ns == before


def test_other_settings_are_refused_until_overwritten(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    run = train(settings(tiny_model, tiny_text), tmp_path / "run")
    other = settings(tiny_model, tiny_text, **{"sae.k": 5})
    with pytest.raises(UserError, match=r"other settings \(sae\.k: 4 → 5\)"):
        train(other, run)
    train(other, run, overwrite=True)
    assert saelab.load(run).config.k == 5


@pytest.mark.parametrize("overrides", ARCHITECTURES[:4] + ARCHITECTURES[6:] + PENALISED, ids=str)
def test_interrupted_and_continued_is_bit_identical(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from saelab.training.trainer import Trainer

    config = settings(tiny_model, tiny_text, **overrides)
    whole = train(config, tmp_path / "whole")
    step = Trainer.step

    def stop_at(number: int) -> None:
        def interrupted(self: Trainer, batch: Any) -> Any:
            if self.done == number:
                raise KeyboardInterrupt
            return step(self, batch)

        monkeypatch.setattr(Trainer, "step", interrupted)

    for number in (3, 11, 26):  # before the first checkpoint, between two, after the last but one
        stop_at(number)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "cut")
    monkeypatch.setattr(Trainer, "step", step)
    cut = train(config, tmp_path / "cut")
    assert same_weights(whole, cut)
    timeless = [
        [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_s")} for line in read_jsonl(path)]
        for path in (RunPaths(whole).metrics, RunPaths(cut).metrics)
    ]
    assert timeless[0] == timeless[1]


def test_kill_minus_nine_and_again(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    config = settings(tiny_model, tiny_text, tokens=128 * 150, checkpoint_every=128 * 20)
    whole = train(config, tmp_path / "whole")
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    code = (
        "import sys\nfrom pathlib import Path\nfrom saelab.config import load_config\n"
        "from saelab.training import TrainConfig, train\n"
        "train(load_config(TrainConfig, sys.argv[1]), Path(sys.argv[2]))\n"
    )
    cut = RunPaths(tmp_path / "cut")
    command = [sys.executable, "-c", code, str(file), str(cut.root)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not cut.checkpoint(40).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not cut.dictionary.exists()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert same_weights(whole, cut.root)


def test_what_a_killed_process_left_is_cleared_up(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "run")
    half = run.checkpoints / ".step-000000007.abc.partial"
    half.mkdir(parents=True)
    (half / "state.safetensors").write_bytes(b"half")
    (run.root / ".config.yaml.abc.partial").write_text("half")
    train(settings(tiny_model, tiny_text), run.root)
    assert not [path for path in run.root.rglob("*") if path.name.endswith(".partial")]
    assert run.dictionary.is_dir()


def test_nan_stops_the_run_with_a_saved_checkpoint(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saelab.training.trainer import Trainer

    step = Trainer.step

    def poisoned(self: Trainer, batch: Any) -> Any:
        if self.done == 9:
            batch.x[0, 0] = torch.nan
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(UserError, match="the loss became nan at step 9"):
        train(settings(tiny_model, tiny_text), tmp_path / "run")
    state = json.loads((RunPaths(tmp_path / "run").checkpoint(9) / "state.json").read_text())
    assert state["step"] == 9
    tensors = read_tensors(RunPaths(tmp_path / "run").checkpoint(9) / "state.safetensors")
    assert all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith("weights."))


def test_gradient_selection_with_beta_0_is_topk_bit_for_bit(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    topk = train(settings(tiny_model, tiny_text), tmp_path / "topk")
    gradient = settings(tiny_model, tiny_text, **{"sae.preset": "gradient", "sae.affinity.beta": 0})
    assert same_weights(topk, train(gradient, tmp_path / "gradient"))


def test_a_site_that_is_not_there(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"blocks\.7\.resid_post isn't in model"):
        train(settings(tiny_model, tiny_text, site="blocks.7.resid_post"), tmp_path / "run")
    # The corrected command must not be refused for the settings of the failed one.
    assert not RunPaths(tmp_path / "run").config.exists()


def test_a_run_of_an_earlier_saelab_with_the_same_settings_is_the_same(
    tiny_model: Path, tiny_text: Path, tmp_path: Path
) -> None:
    config = settings(tiny_model, tiny_text)
    names = RunPaths(train(config, tmp_path / "run"))
    lines = names.config.read_text().splitlines(keepends=True)
    names.config.write_text("".join(line for line in lines if not line.startswith("shuffle_seed")))
    train(config, names.root)
    with pytest.raises(UserError, match=r"other settings \(shuffle_seed: None → 3\)"):
        train(config.model_copy(update={"shuffle_seed": 3}), names.root)


def test_a_checkpoint_of_an_earlier_saelab_is_refused(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    config = settings(tiny_model, tiny_text)
    names = RunPaths(train(config, tmp_path / "run"))
    shutil.rmtree(names.dictionary)
    state = max(names.checkpoints.iterdir()) / "state.json"
    state.write_text(state.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    with pytest.raises(UserError, match=r"state\.json has schema version 1, this saelab reads version 2"):
        train(config, names.root)


def test_a_budget_that_no_threshold_keeps_is_said_and_the_run_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    description = DictionaryConfig(
        architecture="mutual-choice", d_in=3, d_sae=3, k=2, affinity=ActivationAffinity(), allocation=MutualChoice(),
        rule="threshold", scale=1.0, site="blocks.0.resid_post", model="test", model_fingerprint="",
        tokenizer_fingerprint="", policy={}, tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    zeros, threshold = torch.zeros(3), torch.full((3,), 0.5)
    dictionary = saelab.Dictionary(torch.eye(3), torch.eye(3), zeros, zeros, threshold, description)
    fresh = [torch.tensor([[1.0, -1.0, -1.0], [-1.0, 2.0, -1.0]])]  # one positive match a token, two are wanted
    assert torch.equal(keeping_its_budget(dictionary, fresh, "mine").threshold, threshold)
    assert "mine: the running thresholds keep 1.00 latents per token instead of 2; they stay" in capsys.readouterr().err
    assert torch.equal(keeping_its_budget(dictionary, [], "mine").threshold, threshold)
