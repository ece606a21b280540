"""Many runs on one pass: each directory is the one that the run makes alone, however the sweep was cut."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from saelab.activations.config import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.config import load_config, read_settings
from saelab.disk import RunPaths, read_jsonl
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.training import TrainConfig, train, train_all
from saelab.training.grid import expand
from saelab.training.run import Run
from saelab.training.trainer import Trainer

STEPS = 20


def settings(model: Path, text: Path) -> dict[str, Any]:
    return {
        "model": str(model), "site": "blocks.0.resid_post", "corpus.source": str(text), "policy.context": 32,
        "sae.d_sae": 64, "sae.k": 4, "sae.dead_after": 512, "tokens": 64 * STEPS, "batch": 64, "buffer": 256,
        "checkpoint_every": 64 * 4, "log_every": 5, "optimizer.lr": 1e-3, "device": "cpu",
    }  # fmt: skip


GRIDS: dict[str, dict[str, Any]] = {
    "budgets": {"sae.k": [2, 4]},
    "architectures": {"sae.preset": ["topk", "mutual-choice", "feature-choice"]},
    "sites": {"site": ["blocks.0.resid_post", "blocks.1.mlp_out"]},
    "with and without gradients": {"sae.preset": ["topk", "gradient"]},
    "a transcoder beside": {"target": [None, "blocks.1.mlp_out"]},
    "lengths": {"tokens": [64 * 9, 64 * STEPS], "sae.preset": "mutual-choice"},
    "initial weights": {"seed": [0, 1], "shuffle_seed": 5},
    "two passes": {"seed": [0, 1]},
}


@pytest.fixture(scope="module")
def harvested(tiny_model: Path, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("harvested")
    config = {
        "model": str(tiny_model), "sites": ["blocks.0.resid_post", "blocks.1.mlp_out"], "gradients": True,
        "corpus.source": str(tiny_text), "policy.context": 32, "tokens": 2048, "dtype": "fp32", "device": "cpu",
    }  # fmt: skip
    return harvest(load_config(HarvestConfig, None, config), directory / "activations")


@pytest.fixture(params=["stream", "harvest"])
def base(request: pytest.FixtureRequest, tiny_model: Path, tiny_text: Path) -> dict[str, Any]:
    """Settings of a small training, from text or from harvested activations."""
    streamed = settings(tiny_model, tiny_text)
    if request.param == "stream":
        return streamed
    return streamed | {"activations": str(request.getfixturevalue("harvested"))}


def grid(values: dict[str, Any], out: Path) -> dict[Path, TrainConfig]:
    return {out / point.name: point.config for point in expand(TrainConfig, read_settings(None, values), "here")}


def left_by(run: Path) -> dict[str, Any]:
    """All that a finished run consists of, but for clocks and shortcuts: bytes of its files, lines of its metrics."""
    names = RunPaths(run)
    apart = (names.metrics.name, names.lock.name, "state.json")  # the last holds bookmarks
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in apart]
    clocks = ("seconds", "tokens_per_s")
    lines = [{k: v for k, v in line.items() if k not in clocks} for line in read_jsonl(names.metrics)]
    return {str(path.relative_to(run)): path.read_bytes() for path in files} | {"metrics": lines}


def as_if_alone(configs: Mapping[Path, TrainConfig], alone: Path) -> None:
    for directory, config in configs.items():
        assert left_by(directory) == left_by(train(config, alone / directory.name)), directory.name
        assert DictionaryPaths(RunPaths(directory).dictionary).weights.is_file()


@pytest.mark.parametrize("lists", GRIDS.values(), ids=GRIDS)
def test_each_run_is_as_if_trained_alone(base: dict[str, Any], lists: dict[str, Any], tmp_path: Path) -> None:
    configs = grid(base | lists, tmp_path / "sweep")
    train_all(configs)
    as_if_alone(configs, tmp_path / "alone")


def test_few_together_are_the_same(base: dict[str, Any], tmp_path: Path) -> None:
    lists = {"sae.k": [2, 3, 4]}
    configs, few = grid(base | lists, tmp_path / "all"), grid(base | lists, tmp_path / "few")
    train_all(configs)
    train_all(few, together=2)
    assert [left_by(run) for run in configs] == [left_by(run) for run in few]


def test_runs_at_different_places_catch_up(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is finished, one has a checkpoint, one is new: and none of them takes a step twice or in another order."""
    configs = grid(base | {"sae.k": [2, 3, 4]}, tmp_path / "sweep")
    finished, begun, _ = configs
    train(configs[finished], finished)
    step, steps = Trainer.step, []

    def stopping_at(number: int | None) -> None:
        def watched(self: Trainer, batch: Any) -> Any:
            if self.done == number:
                raise KeyboardInterrupt
            steps.append((self.config.sae.k, self.done))
            return step(self, batch)

        monkeypatch.setattr(Trainer, "step", watched)

    stopping_at(10)
    with pytest.raises(KeyboardInterrupt):
        train(configs[begun], begun)
    steps.clear()
    stopping_at(13)
    with pytest.raises(KeyboardInterrupt):
        train_all(configs)
    # Checkpoints are at 4, 8, 12; the one begun had 8. All stop where the first of them comes to 13.
    assert steps == [*((4, n) for n in range(8)), *((k, n) for n in range(8, 13) for k in (3, 4))]
    stopping_at(None)
    train_all(configs)
    monkeypatch.setattr(Trainer, "step", step)
    as_if_alone(configs, tmp_path / "alone")


def test_kill_minus_nine_and_again(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    lists = {"sae.preset": "topk,gradient", "tokens": 64 * 60, "checkpoint_every": 64 * 10}
    values = settings(tiny_model, tiny_text) | lists
    configs = grid(values, tmp_path / "cut")
    words = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "saelab", "train", *words, "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    second = RunPaths(list(configs)[1])
    while process.poll() is None and not second.checkpoint(20).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not second.dictionary.exists()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    as_if_alone(configs, tmp_path / "alone")


def test_one_that_diverges_stops_alone(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    values = settings(tiny_model, tiny_text) | {"optimizer.lr": [1e-3, 1e30], "optimizer.warmup_fraction": 0}
    configs = grid(values, tmp_path / "sweep")
    healthy, hopeless = configs
    with pytest.raises(UserError, match=r"1 of 2 runs diverged, the others are finished: lr1e\+30: the loss became"):
        train_all(configs)
    assert not RunPaths(hopeless).dictionary.exists()
    assert Run(hopeless, configs[hopeless]).done > 0  # its last good state is saved
    as_if_alone({healthy: configs[healthy]}, tmp_path / "alone")


def test_settings_that_can_not_be_met_are_refused_before_anything_is_trained(
    tiny_model: Path, tiny_text: Path, tmp_path: Path
) -> None:
    values = settings(tiny_model, tiny_text) | {"site": ["blocks.0.resid_post", "blocks.7.resid_post"], "seed": [0, 1]}
    configs = grid(values, tmp_path / "sweep")
    with pytest.raises(UserError, match=r"blocks\.7\.resid_post"):
        train_all(configs)
    assert not any(RunPaths(directory).config.exists() for directory in configs)


def test_other_settings_are_refused_and_the_lock_holds(tiny_model: Path, tiny_text: Path, tmp_path: Path) -> None:
    from saelab.disk import exclusive

    configs = grid(settings(tiny_model, tiny_text) | {"sae.k": [2, 4]}, tmp_path / "sweep")
    train_all(configs)
    changed = grid(settings(tiny_model, tiny_text) | {"sae.k": [2, 4], "seed": 3}, tmp_path / "sweep")
    with pytest.raises(UserError, match=r"k2 was made with other settings \(seed: 0 → 3\)"):
        train_all(changed)
    with (
        exclusive(RunPaths(tmp_path / "sweep" / "k4").lock),
        pytest.raises(UserError, match="another saelab process is writing"),
    ):
        train_all(configs)
    train_all(changed, overwrite=True)
    as_if_alone(changed, tmp_path / "alone")


def test_what_does_not_fit_is_refused(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = grid(settings(tiny_model, tiny_text) | {"sae.k": [2, 4]}, tmp_path / "sweep")
    monkeypatch.setattr("saelab.training.sizes.memory_present", lambda device, sharing: 100_000)
    with pytest.raises(UserError, match="2 runs at once need .* GB of memory .* --together"):
        train_all(configs)
    train_all(configs, together=1)  # one alone may try


def test_a_streamed_run_continues_without_tokenising_what_it_has_read(
    tiny_model: Path, tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saelab.activations import pieces

    more = {"batch": 256, "buffer": 1024, "tokens": 256 * 40, "checkpoint_every": 256 * 4, "sae.k": [2, 4]}
    configs = grid(settings(tiny_model, tiny_text) | more, tmp_path / "sweep")
    step, pack, starts = Trainer.step, pieces.pack, []

    def interrupted(self: Trainer, batch: Any) -> Any:
        if self.done == 37:
            raise KeyboardInterrupt
        return step(self, batch)

    def watched(corpus: Any, tokenizer: Any, policy: Any, rows: int, start: Any, **options: Any) -> Any:
        starts.append(start.row)
        return pack(corpus, tokenizer, policy, rows, start, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_all(configs)
    with monkeypatch.context() as patch:
        patch.setattr(pieces, "pack", watched)
        train_all(configs)
    # The last checkpoint is at token 9216, in a row beyond 288: most of the way there is not read again.
    assert 144 < max(starts) <= 297
    as_if_alone(configs, tmp_path / "alone")
