"""kill -9 at any moment, run again: the same bytes as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from saelab.activations import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.models import LanguageModel
from tests.activations.test_harvest import unfinish


def contents(out: Path) -> dict[str, bytes]:
    files = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def test_going_on_after_any_shard_ends_in_the_same_bytes(
    tmp_path: Path, settings: Callable[..., HarvestConfig], model: LanguageModel, harvested: Path
):
    whole = contents(harvested)
    for shards in (0, 1, 6):
        out = Path(shutil.copytree(harvested, tmp_path / f"cut-{shards}"))
        unfinish(out, shards)
        (out / ".manifest.json.abc.partial").write_text("torn")
        assert contents(harvest(settings(gradients=True), out, model=model)) == whole


@pytest.mark.slow
def test_kill_9_again_and_again(tmp_path: Path, settings: Callable[..., HarvestConfig], model: LanguageModel):
    """Processes are killed at random moments while they write 40 shards of 256 tokens."""
    config = settings(tokens=10_240, shard_tokens=256)
    whole = contents(harvest(config, tmp_path / "whole", model=model))
    out = tmp_path / "killed"
    processes = multiprocessing.get_context("forkserver")  # imports torch once, and forks before any thread is there
    processes.set_forkserver_preload(["saelab.activations.harvest", "transformers.models.gpt2.modeling_gpt2"])
    dice = random.Random(0)
    for _ in range(10):
        process = processes.Process(target=harvest, args=(config, out))
        process.start()
        enough = len(list(out.glob("tokens-*"))) + dice.randint(1, 3)
        while process.is_alive() and len(list(out.glob("tokens-*"))) < enough:
            time.sleep(0.001)
        time.sleep(dice.random() * 0.03)  # about as long as a shard takes
        process.kill()
        process.join()
        assert process.exitcode == -9  # it had not finished before
    harvest(config, out, model=model)
    assert contents(out) == whole
