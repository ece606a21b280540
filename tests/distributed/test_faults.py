"""A distributed training whose ranks are killed: it says which, leaves nothing half-written, and goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saelab.disk import ActivationPaths, RunPaths
from saelab.disk.tensors import read_tensors
from saelab.errors import UserError
from saelab.ranks import Ranks
from saelab.training import checkpoint, train_all
from saelab.training.config import TrainConfig
from saelab.training.parallel import ParallelConfig
from tests.forks import Group, Torchrun, wait_for

LAYOUTS = [(1, 2), (2, 1), (2, 2), (1, 3)]


def train(ranks: Ranks, run: Path, config: TrainConfig, data: int, latent: int) -> None:
    train_all({run: config}, ranks=ranks, parallel=ParallelConfig(data=data, latent=latent))


def dictionary(run: Path) -> dict[str, torch.Tensor]:
    """All numbers of the finished dictionary."""
    files = sorted(RunPaths(run).dictionary.glob("*.safetensors"))
    return {f"{path.name}: {name}": tensor for path in files for name, tensor in read_tensors(path).items()}


def require_same_bits(run: Path, other: Path) -> None:
    found, expected = dictionary(run), dictionary(other)
    assert found.keys() == expected.keys()
    assert found
    assert all(found[name].equal(tensor) for name, tensor in expected.items())


def steps_on_disk(run: Path) -> int:
    """Of the last checkpoint, which must be whole, as all of them."""
    paths = RunPaths(run)
    for path in paths.checkpoints.glob("step-*"):
        assert int(path.name.removeprefix("step-")) % 20 == 0
        assert read_tensors(path / "state.safetensors")
    state = checkpoint.latest_state(paths)
    return 0 if state is None else state.step


def newest(run: Path) -> int:
    """Steps of the last checkpoint of a run that is under way, whose files may go at any moment; 0 without one."""
    names = [path.name for path in RunPaths(run).checkpoints.glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


@pytest.mark.parametrize(("data", "latent"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.distributed)])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path, training: TrainConfig, data: int, latent: int):
    """One kill between two checkpoints, and one while a checkpoint is being written."""
    victim = data - 1  # rank 1 and rank 0
    run, whole = tmp_path / "run", tmp_path / "whole"
    config = training.model_copy(update={"tokens": 120 * training.batch})
    assert {kind for kind, _ in Group(tmp_path / "a", 2, train, whole, config, data, latent).wait()} == {"done"}
    ends = Group(tmp_path / "b", 2, train_until_killed, run, config, data, latent, victim, 50, False).wait()
    require_named(ends, victim)
    assert steps_on_disk(run) == 40
    ends = Group(tmp_path / "c", 2, train_until_killed, run, config, data, latent, victim, 80, True).wait()
    require_named(ends, victim)
    assert steps_on_disk(run) == 60
    assert {kind for kind, _ in Group(tmp_path / "d", 2, train, run, config, data, latent).wait()} == {"done"}
    require_same_bits(run, whole)


def train_until_killed(
    ranks: Ranks, run: Path, config: TrainConfig, data: int, latent: int, victim: int, step: int, in_checkpoint: bool
) -> None:
    """The victim dies before step number `step`, or as it writes its part of the checkpoint after it."""
    from saelab.training.trainer import Trainer

    name = "pieces" if in_checkpoint else "step"
    inner = getattr(Trainer, name)

    def deadly(trainer: Trainer, *arguments: object) -> object:
        if ranks.rank == victim and trainer.done >= step:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(trainer, *arguments)

    setattr(Trainer, name, deadly)
    train(ranks, run, config, data, latent)


def require_named(ends: list[tuple[str, str]], victim: int) -> None:
    assert ends[victim] == ("killed", "")
    kind, sentence = ends[1 - victim]
    assert kind == "LostRankError"
    assert f"rank {victim} (process " in sentence


def fail_at(ranks: Ranks, run: Path, config: TrainConfig) -> None:
    """One rank meets a full disk in the middle of a step."""
    from saelab.training.trainer import Trainer

    inner = Trainer.look

    def failing(trainer: Trainer, *arguments: object) -> object:
        if ranks.rank == 1 and trainer.done == 30:
            raise UserError("the disk is full")
        return inner(trainer, *arguments)  # type: ignore[arg-type]

    Trainer.look = failing  # type: ignore[method-assign, assignment]
    train(ranks, run, config, 1, 3)


def test_an_error_of_one_rank_ends_a_training_of_three(tmp_path: Path, training: TrainConfig):
    ends = Group(tmp_path / "ends", 3, fail_at, tmp_path / "run", training).wait()
    told = "SaidElsewhereError", "the disk is full"
    assert ends == [told, ("UserError", "the disk is full"), told]
    assert steps_on_disk(tmp_path / "run") == 20


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory, settings: Path) -> Callable[[int, int], Path]:
    """A run of a layout that nobody disturbs, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("unkilled")

    def run(data: int, latent: int) -> Path:
        path = folder / f"{data}x{latent}"
        if not path.exists():
            code, said = launch(folder, settings, path, data, latent).end()
            assert code == 0, said
        return path

    return run


def launch(folder: Path, settings: Path, run: Path, data: int, latent: int, *options: str) -> Torchrun:
    words = "train", settings, "--out", run, "--parallel.data", data, "--parallel.latent", latent
    return Torchrun(folder / "said", data * latent, *words, options=options)


def kill_one(started: Torchrun, run: Path, size: int, chance: random.Random) -> tuple[int, int, bool]:
    """kill -9 a rank that chance names, at a moment that it names: while the ranks find one another, or so many lines
    of metrics later. Gives the rank, its process, and whether all ranks had met."""
    victim, lines = chance.randrange(size), chance.randrange(-2, 7)
    wait_for(lambda: started.pid(victim) is not None)
    if lines < 0:
        time.sleep(chance.uniform(0, 8))
    else:
        since = time.time_ns()
        wait_for(lambda: written_since(run, since) or started.process.poll() is not None)
        begun = length(run)
        wait_for(lambda: length(run) >= begun + lines or started.process.poll() is not None)
        time.sleep(chance.uniform(0, 0.3))
    pid = started.pid(victim)
    assert pid is not None, started.said
    os.kill(pid, signal.SIGKILL)
    return victim, pid, lines >= 0


def written_since(run: Path, since: int) -> bool:
    metrics = RunPaths(run).metrics
    return metrics.exists() and metrics.stat().st_mtime_ns > since


def length(run: Path) -> int:
    return RunPaths(run).metrics.read_text().count("\n")


def require_one_sentence(said: str, victim: int, pid: int, have_met: bool) -> None:
    """Of ours there is one that names the rank; ranks that have not met yet have nothing to say."""
    assert not any("/saelab/" in line for line in said.splitlines() if line.lstrip().startswith("File ")), said
    told = [line for line in said.splitlines() if line.startswith("saelab: ")]
    if have_met:
        assert len(told) == 1, said
        assert f"rank {victim} (process {pid} on " in told[0]
    else:
        assert len(told) <= 1, said
        assert all(f"rank {victim} " in line for line in told), said


@pytest.mark.distributed
@pytest.mark.parametrize(("data", "latent"), LAYOUTS)
def test_ranks_killed_at_random_under_torchrun(
    tmp_path: Path, settings: Path, unkilled: Callable[[int, int], Path], data: int, latent: int
):
    """Three kills for each layout, one behind the other: twelve in all."""
    chance, run, size = random.Random(10 * data + latent), tmp_path / "run", data * latent
    for _ in range(3):
        started = launch(tmp_path, settings, run, data, latent)
        victim, pid, have_met = kill_one(started, run, size, chance)
        code, said = started.end()
        assert code != 0
        require_one_sentence(said, victim, pid, have_met)
        steps_on_disk(run)
    code, said = launch(tmp_path, settings, run, data, latent).end()
    assert code == 0, said
    require_same_bits(run, unkilled(data, latent))


@pytest.mark.distributed
def test_what_was_killed_goes_on_in_another_layout(
    tmp_path: Path, settings: Path, unkilled: Callable[[int, int], Path]
):
    """3 ranks, then 2 × 2, then one process alone: each continues, and the dictionary is the same to rounding."""
    run = tmp_path / "run"
    for data, latent in ((1, 3), (2, 2)):
        before = steps_on_disk(run)
        started = launch(tmp_path, settings, run, data, latent)
        wait_for(lambda before=before: newest(run) > before + 40)
        pid = started.pid(1)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        code, said = started.end()
        assert code != 0
        require_one_sentence(said, 1, pid, True)
    done = steps_on_disk(run)
    assert done > 80
    code, said = Torchrun(tmp_path / "said", 1, "train", settings, "--out", run).end()
    assert code == 0, said
    found, expected = dictionary(run), dictionary(unkilled(1, 2))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.distributed
def test_torchrun_restarts_alone(tmp_path: Path, settings: Path, unkilled: Callable[[int, int], Path]):
    run = tmp_path / "run"
    started = launch(tmp_path, settings, run, 1, 2, "--max-restarts", "2")
    for victim, steps in ((0, 60), (1, 200)):
        wait_for(lambda steps=steps: newest(run) >= steps)
        pid = started.pid(victim)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda pid=pid, victim=victim: started.pid(victim) not in (None, pid))
    code, said = started.end()
    assert code == 0, said
    assert said.count("saelab: rank 0 (process ") == 1
    assert said.count("saelab: rank 1 (process ") == 1
    assert said.count("saelab: ") == 2
    require_same_bits(run, unkilled(1, 2))


@pytest.mark.distributed
def test_a_rank_that_is_stopped_ends_the_job(tmp_path: Path, settings: Path):
    """SIGSTOP: the others wait for it inside torch, and end by themselves."""
    run = tmp_path / "run"
    line = f'exec "$0" {STOPPING} train {settings} --out {run} --parallel.latent 2'
    started = Torchrun(tmp_path / "said", 2, shell=line)
    wait_for(lambda: newest(run) >= 40)
    pid = started.pid(1)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: "saelab: " in started.said)
    os.kill(pid, signal.SIGKILL)  # torchrun waits half a minute for it to hear SIGTERM
    code, said = started.end()
    assert code != 0
    require_one_sentence(said, 1, pid, True)
    assert "no sign of life for 4 s" in said


STOPPING = Path(__file__).parent / "impatient.py"


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("differs", "sentence"),
    [
        ("--seed $RANK", "the digest of the settings of rank 1 (process "),
        ("--parallel.data $(( RANK + 1 ))", "rank 1 (process "),
    ],
)
def test_ranks_that_were_started_differently_are_refused(tmp_path: Path, settings: Path, differs: str, sentence: str):
    run = tmp_path / "run"
    line = f'exec "$0" -m saelab train {settings} --out {run} {differs}'
    code, said = Torchrun(tmp_path / "said", 2, shell=line).end()
    assert code != 0
    told = [line for line in said.splitlines() if line.startswith("saelab: ")]
    assert len(told) == 1, said
    assert sentence in told[0]
    assert not RunPaths(run).checkpoints.exists()


@pytest.mark.distributed
def test_ranks_that_read_other_data_are_refused(tmp_path: Path, activations: Path, settings: Path):
    """The same path, but for one rank it is another harvest."""
    other = tmp_path / "other"
    shutil.copytree(activations, other)
    manifest = ActivationPaths(other).manifest
    manifest.write_text(manifest.read_text() + " ")
    link = tmp_path / "link"
    (link / "0").mkdir(parents=True)
    (link / "1").mkdir()
    (link / "0" / "data").symlink_to(activations)
    (link / "1" / "data").symlink_to(other)
    line = f'cd {link}/$RANK && exec "$0" -m saelab train {settings} --activations data --out {tmp_path}/run'
    code, said = Torchrun(tmp_path / "said", 2, shell=line).end()
    assert code != 0
    told = [line for line in said.splitlines() if line.startswith("saelab: ")]
    assert len(told) == 1, said
    assert "the checksum of " in told[0]
    assert "of rank 1 (process " in told[0]
