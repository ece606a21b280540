"""Several processes train a run together: the run that one process makes, whoever began it and whoever ends it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import saelab
from saelab.activations.batch import ActivationBatch
from saelab.activations.config import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.config import load_config
from saelab.disk import RunPaths, read_jsonl
from saelab.disk.layout import CheckpointPaths, DictionaryPaths
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.errors import UserError
from saelab.ranks import Ranks
from saelab.training import TrainConfig, train, train_all, trainer
from saelab.training.parallel import ParallelConfig
from saelab.training.run import Run
from saelab.training.trainer import Trainer
from tests.forks import Group

STEPS, CUT = 20, 13
CLOSE = 1e-5
Job = dict[str, Any]
"""Settings, folder, layout, and at which step the processes stop (0: never)."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "topk": {"sae.aux.kind": "aux_zipf", "sae.aux.fit_every": 3},
    "feature": {"sae.preset": "feature-choice"},
    "jumprelu": {"sae.preset": "jumprelu"},
}


class StoppedError(Exception):
    """As Ctrl-C, for those that must not end."""


@contextmanager
def in_float64() -> Iterator[None]:
    """Runs whose sums do not depend on their order in a way that Adam could make large."""
    begin, take = Run.begin, Run.take

    def double(batch: ActivationBatch) -> ActivationBatch:
        gradient = None if batch.gradient is None else batch.gradient.double()
        x = batch.x.double()
        return replace(batch, x=x, target=x if batch.target is batch.x else batch.target.double(), gradient=gradient)

    def begun(self: Run, origin: Any, golden: Any, sample: Any, target_widths: Any) -> None:
        begin(self, origin, golden, None if sample is None else double(sample), target_widths)

    Run.begin, Run.take = begun, lambda self, batch: take(self, double(batch))
    try:
        yield
    finally:
        Run.begin, Run.take = begin, take


@contextmanager
def stopping_at(number: int, sharded: bool) -> Iterator[None]:
    step, moves_rows = Trainer.step, trainer.moves_rows

    def stopped(self: Trainer, batch: ActivationBatch) -> Any:
        if self.done == number and number:
            raise StoppedError
        return step(self, batch)

    Trainer.step, trainer.moves_rows = stopped, lambda *sizes: sharded
    try:
        yield
    finally:
        Trainer.step, trainer.moves_rows = step, moves_rows


def trains(ranks: Ranks, jobs: list[Job]) -> str:
    torch.set_num_threads(1)
    said: list[str] = []
    for job in jobs:
        parallel = dict(job.get("parallel", {}))
        sharded = parallel.pop("sharded", False)
        config = load_config(TrainConfig, None, job["settings"])
        with in_float64(), stopping_at(job.get("stop", 0), sharded):
            try:
                train_all({Path(job["out"]): config}, ranks=ranks, parallel=ParallelConfig(**parallel))
            except (UserError, StoppedError) as error:
                said.append(f"{type(error).__name__} {error}".strip())
            else:
                said.append("done")
    return json.dumps(said)


def on_ranks(folder: Path, size: int, jobs: list[Job]) -> list[str]:
    """What all ranks say of each job."""
    (said,) = {(how, value) for how, value in Group(folder, size, trains, jobs).wait()}
    assert said[0] == "done", said
    return json.loads(said[1])


@pytest.fixture(scope="module")
def settings(tiny_model: Path, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    source = {
        "model": str(tiny_model), "sites": ["blocks.0.resid_post"], "corpus.source": str(tiny_text),
        "policy.context": 32, "tokens": 2048, "dtype": "bf16", "device": "cpu",
    }  # fmt: skip
    made = harvest(load_config(HarvestConfig, None, source), tmp_path_factory.mktemp("harvest") / "activations")
    return {
        "activations": str(made), "site": "blocks.0.resid_post", "sae.d_sae": 67, "sae.k": 4, "sae.dead_after": 512,
        "tokens": 61 * STEPS, "batch": 61, "buffer": 250, "checkpoint_every": 61 * 4, "log_every": 5,
        "optimizer.lr": 1e-3, "device": "cpu",
    }  # fmt: skip


@pytest.fixture(scope="module")
def one(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runs of one process."""
    folder = tmp_path_factory.mktemp("one")
    with in_float64():
        return {
            name: train(load_config(TrainConfig, None, settings | more), folder / name)
            for name, more in ARCHITECTURES.items()
        }


def same(run: Path, expected: Path) -> None:
    """The dictionary, the settings, and the lines of metrics."""
    ours, theirs = (read_tensors(DictionaryPaths(RunPaths(path).dictionary).weights) for path in (run, expected))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=CLOSE, atol=CLOSE, msg=lambda text, n=name: f"{n}: {text}")
    assert RunPaths(run).config.read_bytes() == RunPaths(expected).config.read_bytes()
    lines = [read_jsonl(RunPaths(path).metrics) for path in (run, expected)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for line, wanted in zip(*lines, strict=True):
        assert (line["dead"], line["l0"]) == (wanted["dead"], wanted["l0"])
        assert line["fvu"] == pytest.approx(wanted["fvu"], rel=CLOSE)
    saelab.load(run)  # golden outputs included


def weights(run: Path) -> bytes:
    return DictionaryPaths(RunPaths(run).dictionary).weights.read_bytes()


def test_two_ranks_make_the_run_of_one_process(
    settings: dict[str, Any], one: dict[str, Path], tmp_path: Path, tiny_model: Path, tiny_text: Path
) -> None:
    text = {"model": str(tiny_model), "corpus.source": str(tiny_text), "policy.context": 32, "activations": None}
    streamed = settings | text | {"batch": 200, "buffer": 300, "tokens": 200 * 8, "checkpoint_every": 200 * 3}
    feature = settings | ARCHITECTURES["feature"]
    with in_float64(), stopping_at(CUT, sharded=False), pytest.raises(StoppedError):
        train(load_config(TrainConfig, None, feature), tmp_path / "from one")
    jobs: list[Job] = [
        {"settings": settings | ARCHITECTURES["topk"], "out": "latent", "parallel": {"latent": 2}},
        {"settings": settings | ARCHITECTURES["topk"], "out": "cut", "stop": CUT},
        {"settings": settings | ARCHITECTURES["topk"], "out": "cut"},
        {"settings": feature, "out": "data", "parallel": {"data": 2, "sharded": True}},
        {"settings": feature, "out": "from one", "parallel": {"data": 2}},
        {"settings": feature, "out": "to one", "parallel": {"data": 2}, "stop": CUT},
        {"settings": streamed, "out": "text", "stop": 5},
        {"settings": streamed, "out": "text", "parallel": {"data": 2}},
    ]
    said = on_ranks(tmp_path, 2, [job | {"out": str(tmp_path / job["out"])} for job in jobs])
    assert said == ["done", "StoppedError", "done", "done", "done", "StoppedError", "StoppedError", "done"]

    same(tmp_path / "latent", one["topk"])
    assert weights(tmp_path / "cut") == weights(tmp_path / "latent")
    same(tmp_path / "data", one["feature"])
    same(tmp_path / "from one", one["feature"])
    with in_float64():
        train(load_config(TrainConfig, None, feature), tmp_path / "to one")
        train(load_config(TrainConfig, None, streamed), tmp_path / "text of one")
    same(tmp_path / "to one", one["feature"])
    same(tmp_path / "text", tmp_path / "text of one")


def test_a_checkpoint_is_the_file_that_one_process_writes(
    settings: dict[str, Any], one: dict[str, Path], tmp_path: Path
) -> None:
    """To the byte, but for the numbers in it; and the last one is that of the finished weights."""
    job = {"settings": settings | ARCHITECTURES["jumprelu"], "out": str(tmp_path / "run"), "parallel": {"data": 2}}
    assert on_ranks(tmp_path, 2, [job]) == ["done"]
    same(tmp_path / "run", one["jumprelu"])
    found, expected = (
        {path.name: path for path in sorted(RunPaths(run).checkpoints.iterdir())}
        for run in (tmp_path / "run", one["jumprelu"])
    )
    assert list(found) == ["step-000000016", "step-000000020"]
    ours, theirs = (CheckpointPaths(of["step-000000016"]).tensors for of in (found, expected))
    tensors = read_tensors(ours)
    for name, tensor in read_tensors(theirs).items():
        torch.testing.assert_close(tensors[name], tensor, rtol=CLOSE, atol=CLOSE)
    write_tensors(tmp_path / "again", tensors)
    assert (tmp_path / "again").read_bytes() == ours.read_bytes()
    states = [json.loads(CheckpointPaths(of["step-000000016"]).state.read_text()) for of in (found, expected)]
    assert states[0] == states[1]


def spoiled(ranks: Ranks, values: dict[str, Any], out: str) -> str:
    """The ninth batch has a number that is none."""
    step = Trainer.step

    def poisoned(self: Trainer, batch: ActivationBatch) -> Any:
        if self.done == 9:
            batch.x[0, 0] = torch.nan
        return step(self, batch)

    Trainer.step = poisoned
    train_all({Path(out): load_config(TrainConfig, None, values)}, ranks=ranks)
    return "not reached"


def test_a_loss_that_is_no_number_ends_all_with_one_sentence(settings: dict[str, Any], tmp_path: Path) -> None:
    ends = Group(tmp_path, 2, spoiled, settings, str(tmp_path / "run")).wait()
    assert sorted(how for how, _ in ends) == ["DivergedError", "SaidElsewhereError"]
    assert all(sentence.startswith("the loss became nan at step 9") for _, sentence in ends)
    state = json.loads(CheckpointPaths(RunPaths(tmp_path / "run").checkpoint(9)).state.read_text())
    assert state["step"] == 9
    tensors = read_tensors(CheckpointPaths(RunPaths(tmp_path / "run").checkpoint(9)).tensors)
    assert all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith("weights."))


def differs(ranks: Ranks, values: dict[str, Any], out: str, other: dict[str, Any]) -> str:
    more = other if ranks.rank == 1 else {}
    train_all({Path(out): load_config(TrainConfig, None, values | more)}, ranks=ranks)
    return "not reached"


def test_ranks_with_other_settings_or_other_text_are_refused(
    settings: dict[str, Any], tmp_path: Path, tiny_model: Path, tiny_text: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder, words in (("a", "one two"), ("b", "one too")):
        (tmp_path / folder / "text.txt").write_text(words + tiny_text.read_text())
    ends = Group(tmp_path, 2, differs, settings, str(tmp_path / "run"), {"optimizer.lr": 2e-3}).wait()
    assert {sentence[:33] for _, sentence in ends} == {"the digest of the settings of ran"}
    values = settings | {"model": str(tiny_model)}
    ends = Group(tmp_path, 2, changed_under_it, values, str(tmp_path / "run"), str(tmp_path)).wait()
    assert all(sentence.startswith("the digest of corpus") for _, sentence in ends), ends
    assert not (tmp_path / "run" / "config.yaml").exists()


def changed_under_it(ranks: Ranks, values: dict[str, Any], out: str, folder: str) -> str:
    """The same relative path, other files: as on machines that share no folder."""
    os.chdir(Path(folder) / "ab"[ranks.rank])
    text = values | {"activations": None, "corpus.source": "text.txt", "policy.context": 32}
    train_all({Path(out): load_config(TrainConfig, None, text)}, ranks=ranks)
    return "not reached"


@pytest.mark.distributed
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_number_of_ranks_continues_what_any_other_began(
    settings: dict[str, Any], one: dict[str, Path], tmp_path: Path, architecture: str
) -> None:
    values = settings | ARCHITECTURES[architecture]

    def job(out: str, stop: int = 0, **parallel: Any) -> Job:
        return {"settings": values, "out": str(tmp_path / out), "parallel": parallel, "stop": stop}

    with in_float64(), stopping_at(CUT, sharded=False), pytest.raises(StoppedError):
        train(load_config(TrainConfig, None, values), tmp_path / "one to four")
    both = {"data": 2, "latent": 2}
    four: list[Job] = [
        job("whole", **both), job("same", CUT, **both), job("same", **both), job("four to one", CUT, **both),
        job("four to two", CUT, latent=4), job("one to four", **both), job("rows", CUT, **both, sharded=True),
        job("data", data=4), job("two and back", 6, **both),
    ]  # fmt: skip
    assert on_ranks(tmp_path / "4", 4, four) == [
        "StoppedError" if one_of["stop"] else "done" for one_of in four
    ]  # fmt: skip
    two = [job("four to two", latent=2), job("rows", data=2, sharded=True), job("two and back", CUT, data=2)]
    assert on_ranks(tmp_path / "2", 2, two) == ["done", "done", "StoppedError"]
    assert on_ranks(tmp_path / "again", 4, [job("two and back", **both)]) == ["done"]
    with in_float64():
        train(load_config(TrainConfig, None, values), tmp_path / "four to one")
    assert weights(tmp_path / "same") == weights(tmp_path / "whole")
    for name in ("whole", "four to one", "four to two", "one to four", "rows", "data", "two and back"):
        same(tmp_path / name, one[architecture])


@pytest.mark.distributed
def test_three_ranks_read_text_too(tiny_model: Path, tiny_text: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    more = {
        "activations": None, "model": str(tiny_model), "corpus.source": str(tiny_text), "policy.context": 32,
        "batch": 200, "buffer": 300, "tokens": 200 * 30, "checkpoint_every": 200 * 7, "sae.preset": "gradient",
    }  # fmt: skip
    with in_float64():
        train(load_config(TrainConfig, None, settings | more), tmp_path / "one")
    job: Job = {"settings": settings | more, "out": str(tmp_path / "three"), "parallel": {"data": 3}}
    assert on_ranks(tmp_path, 3, [job | {"stop": 24}, job | {"parallel": {"latent": 3}}]) == ["StoppedError", "done"]
    same(tmp_path / "three", tmp_path / "one")
