"""A grid whose runs are spread over processes: each directory is the one that its run makes alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from saelab.activations.config import HarvestConfig
from saelab.activations.harvest import harvest
from saelab.config import load_config
from saelab.disk import RunPaths
from saelab.errors import UserError
from saelab.ranks import Ranks
from saelab.training import train_all
from saelab.training.parallel import ParallelConfig
from saelab.training.run import Run
from saelab.training.trainer import Trainer
from tests.forks import Group
from tests.training.test_sweep import as_if_alone, grid, settings

LISTS: dict[str, Any] = {"sae.preset": "[topk, mutual-choice]", "sae.d_sae": "[64, 96]"}


def spreads(ranks: Ranks, jobs: list[tuple[dict[str, Any], str, int | None, dict[str, int]]]) -> str:
    """Each: a grid, its folder, `together`, and where each run is stopped (by name)."""
    torch.set_num_threads(1)
    step, said = Trainer.step, []
    steps: list[str] = []
    for values, out, together, stops in jobs:
        configs = grid(values, Path(out))
        names = {config.model_dump_json(): directory.name for directory, config in configs.items()}

        def watched(self: Trainer, batch: Any, names: Any = names, stops: Any = stops) -> Any:
            name = names[self.config.model_dump_json()]
            if stops.get(name) == self.done:
                raise UserError(f"{name} is stopped")
            steps.append(name)
            return step(self, batch)

        Trainer.step = watched
        steps.clear()
        try:
            train_all(configs, together=together, ranks=ranks, parallel=ParallelConfig(sweep=True))
        except UserError as error:
            said.append(str(error))
        else:
            said.append(f"{sorted(set(steps))}")
    return json.dumps(said)


@pytest.fixture(scope="module")
def base(tiny_model: Path, tiny_text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    config = {
        "model": str(tiny_model), "sites": ["blocks.0.resid_post", "blocks.1.mlp_out"], "gradients": True,
        "corpus.source": str(tiny_text), "policy.context": 32, "tokens": 2048, "dtype": "fp32", "device": "cpu",
    }  # fmt: skip
    made = harvest(load_config(HarvestConfig, None, config), tmp_path_factory.mktemp("harvest") / "activations")
    return settings(tiny_model, tiny_text) | {"activations": str(made)}


def test_runs_are_dealt_and_are_as_if_trained_alone(base: dict[str, Any], tmp_path: Path) -> None:
    text = base | {"activations": None, "site": "[blocks.0.resid_post, blocks.1.mlp_out]", "tokens": "[640, 1280]"}
    jobs = [(base | LISTS, str(tmp_path / "grid"), None, {}), (text, str(tmp_path / "text"), 2, {})]
    ends = Group(tmp_path, 2, spreads, jobs).wait()
    assert [how for how, _ in ends] == ["done"] * 2, ends
    trained = [[json.loads(one.replace("'", '"')) for one in json.loads(value)] for _, value in ends]
    for number, (values, out, _, _) in enumerate(jobs):
        configs = grid(values, Path(out))
        names = [set(of_rank[number]) for of_rank in trained]
        assert names[0] | names[1] == {directory.name for directory in configs}
        assert not names[0] & names[1]
        assert len(names[0]) == 2
        as_if_alone(configs, tmp_path / "alone" / str(number))


@pytest.mark.distributed
def test_runs_at_different_places_catch_up(base: dict[str, Any], tmp_path: Path) -> None:
    """One is finished, two have checkpoints, one is new; then a rank stops, which ends the others; then all end."""
    values = base | LISTS
    configs = grid(values, tmp_path / "grid")
    first, second, third, _ = configs
    train_all({first: configs[first]})
    for run, steps in ((second, 10), (third, 6)):
        step = Trainer.step

        def stopped(self: Trainer, batch: Any, steps: int = steps, step: Any = step) -> Any:
            if self.done == steps:
                raise KeyboardInterrupt
            return step(self, batch)

        Trainer.step = stopped
        with pytest.raises(KeyboardInterrupt):
            train_all({run: configs[run]})
        Trainer.step = step
    job = values, str(tmp_path / "grid"), None
    ends = Group(tmp_path / "a", 3, spreads, [(*job, {second.name: 15})]).wait()
    assert any(f"{second.name} is stopped" in value for _, value in ends), ends
    assert not RunPaths(second).dictionary.exists()
    ends = Group(tmp_path / "b", 3, spreads, [(*job, {})]).wait()
    assert [how for how, _ in ends] == ["done"] * 3, ends
    as_if_alone(configs, tmp_path / "alone")


def diverges(ranks: Ranks, values: dict[str, Any], out: str) -> None:
    torch.set_num_threads(1)
    train_all(grid(values, Path(out)), ranks=ranks, parallel=ParallelConfig(sweep=True))


def test_one_that_diverges_stops_alone(base: dict[str, Any], tmp_path: Path) -> None:
    values = base | {"optimizer.lr": [1e-3, 1e30], "optimizer.warmup_fraction": 0}
    ends = Group(tmp_path, 2, diverges, values, str(tmp_path / "sweep")).wait()
    assert sorted(how for how, _ in ends) == ["DivergedError", "SaidElsewhereError"]
    told = "1 of 2 runs diverged, the others are finished: lr1e+30: the loss became"
    assert all(sentence.startswith(told) for _, sentence in ends), ends
    configs = grid(values, tmp_path / "sweep")
    healthy, hopeless = configs
    assert not RunPaths(hopeless).dictionary.exists()
    assert Run(hopeless, configs[hopeless]).done > 0  # its last good state is saved
    as_if_alone({healthy: configs[healthy]}, tmp_path / "alone")
