"""kill -9 at any moment, run again: the same bytes as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saelab.activations import HarvestConfig, Manifest
from saelab.activations.harvest import harvest
from saelab.config import to_yaml
from saelab.corpora import CorpusConfig
from saelab.disk import write_text
from saelab.models import LanguageModel
from tests.activations.test_harvest import unfinish
from tests.forks import PROCESSES, wait_for

Settings = Callable[..., HarvestConfig]


def contents(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_going_on_after_any_shards_ends_in_the_same_bytes(
    tmp_path: Path, settings: Settings, model: LanguageModel, harvested: Path
):
    whole = contents(harvested)
    for shards in ([], [0], [0, 1, 2, 3, 4, 5], [6], [1, 3, 4], [0, 1, 2, 3, 4, 5, 6]):
        out = Path(shutil.copytree(harvested, tmp_path / f"only-{shards}"))
        unfinish(out, shards)
        (out / ".manifest.json.abc.partial").write_text("torn")
        assert contents(harvest(settings(gradients=True), out, model=model)) == whole


def test_a_harvest_that_ended_between_its_last_two_steps_is_tidied_up(
    tmp_path: Path, settings: Settings, harvested: Path, monkeypatch: pytest.MonkeyPatch
):
    out = Path(shutil.copytree(harvested, tmp_path / "copy"))
    unfinish(out, list(range(7)))
    (out / "manifest.json").write_bytes((harvested / "manifest.json").read_bytes())
    monkeypatch.setattr("saelab.activations.harvest.load_model", None)  # it takes no model
    assert contents(harvest(settings(gradients=True), out)) == contents(harvested)


def harvest_until(config: HarvestConfig, out: Path, steps: int, after: bool) -> None:
    """Harvest, and die of kill -9 right before or right after the `steps`-th time that a file takes its name."""
    replace = os.replace

    def counting(source: str, target: str) -> None:
        nonlocal steps
        steps -= 1
        if steps == 0 and after:
            replace(source, target)
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = counting
    harvest(config, out)


def test_kill_9_at_every_kind_of_step(tmp_path: Path, settings: Settings, model: LanguageModel):
    """Before and after each write of the last shard, of its entry, and of the manifests that begin and end it all."""
    config = settings(tokens=1280, shard_tokens=1024, sites=["blocks.0.resid_post"])  # two shards
    whole = contents(harvest(config, tmp_path / "whole", model=model))
    kills = 0
    for steps in range(1, 9):  # the first manifest, twice (tokens, x, entry), the last manifest
        for after in (False, True):
            out = tmp_path / f"{steps}-{after}"
            process = PROCESSES.Process(target=harvest_until, args=(config, out, steps, after))
            process.start()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            assert contents(harvest(config, out, model=model)) == whole
    assert kills == 16


@pytest.mark.slow
def test_kill_9_again_and_again(tmp_path: Path, settings: Settings, model: LanguageModel):
    """Processes are killed at random moments while they write 240 shards of 256 tokens: more than they come to."""
    config = settings(tokens=61_440, shard_tokens=256, corpus=CorpusConfig(source="microworld"))
    whole = contents(harvest(config, tmp_path / "whole", model=model))
    out = tmp_path / "killed"
    dice = random.Random(0)
    for _ in range(24):
        process = PROCESSES.Process(target=harvest, args=(config, out))
        process.start()
        enough = len(list(out.glob("tokens-*"))) + dice.randint(0, 2)
        wait_for(lambda process=process, enough=enough: len(list(out.glob("tokens-*"))) >= enough)
        time.sleep(dice.random() * 0.03)  # about as long as a shard takes
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it had not finished before
    assert not Manifest.load(out).finished
    assert contents(harvest(config, out, model=model)) == whole


@pytest.mark.slow
def test_kill_9_of_the_command_itself(tmp_path: Path, settings: Settings, model: LanguageModel):
    config = settings(tokens=10_240, shard_tokens=256)
    whole = contents(harvest(config, tmp_path / "whole", model=model))
    out = tmp_path / "killed"
    write_text(tmp_path / "harvest.yaml", to_yaml(config))
    command = [sys.executable, "-m", "saelab", "harvest", str(tmp_path / "harvest.yaml"), "--out", str(out)]
    for shards in (1, 20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda shards=shards: len(list(out.glob("entries/[0-9]*.json"))) >= shards)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "shards of an earlier run" in done.stdout
    assert "10,240 read" in done.stdout
    assert contents(out) == whole
