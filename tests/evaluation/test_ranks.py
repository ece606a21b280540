"""Evaluation divided among processes: the same bits as one process, and nothing half-written when one is killed."""

import json
import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from saelab.corpora import TokenPolicy
from saelab.evaluation import measure
from saelab.evaluation.config import EvaluateConfig
from saelab.evaluation.evaluate import evaluate
from saelab.evaluation.together.run import evaluate_together
from saelab.models import LanguageModel
from saelab.ranks import Ranks
from tests.evaluation.runs import make_run
from tests.forks import Group

# Twenty rows in batches of three, the last of two; and a single batch, of which only the first rank has any.
BASIS = {"tokens": 640, "batch_rows": 3, "resamples": 10, "mean_tokens": 100, "device": "cpu", "dtype": "float32"}
SUITES = {**BASIS, "suites": ["fidelity", "sparsity", "labels"]}
FEW = {**BASIS, "suites": ["fidelity", "sparsity"], "tokens": 64, "batch_rows": 8}
STEERING = {"latents": 4, "contexts": 5, "strengths": [1.0], "lengths": [1.0], "longest": 20}
ALL = {**BASIS, "suites": ["fidelity", "sparsity", "labels", "steering"], "tokens": 1280, "steering": STEERING}
SINKS = TokenPolicy(context=32, sink_site="blocks.0.resid_post", sink_norm=1.2)

Cases = list[tuple[str, dict[str, Any]]]
SHORT: Cases = [("suites", SUITES), ("few", FEW)]
LONG: Cases = [
    ("all", ALL),
    ("steered", {**ALL, "suites": ["steering"]}),
    ("set", {**BASIS, "together": True}),
    ("sinks", SUITES),
]


def begin(root: Path, tiny_model: Path, cases: Cases) -> None:
    """Dictionaries at two sites, one of which the gradient helps; one more that reads no sinks."""
    model = LanguageModel.load(tiny_model, device="cpu")
    for name, _ in cases:
        make_run(root / name / "a", model, "blocks.0.resid_post", beta=2.0)
        make_run(root / name / "b", model, "blocks.1.mlp_out", seed=1)
        make_run(root / name / "sinks", model, "blocks.1.resid_post", seed=2, policy=SINKS)


def work(ranks: Ranks, root: Path, cases: Cases) -> str:
    """Evaluate every case; what the reports say."""
    found = []
    for name, settings in cases:
        runs = [root / name / run for run in (("sinks",) if name == "sinks" else ("a", "b"))]
        config = EvaluateConfig.model_validate({"runs": runs, **settings})
        reports = [evaluate_together(config, ranks=ranks)] if config.together else evaluate(config, ranks=ranks)
        found += [without_time(report.model_dump(mode="json")) for report in reports]
    return json.dumps(found)


def without_time(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: without_time(value) for name, value in content.items() if name not in ("seconds", "created")}
    return [without_time(value) for value in content] if isinstance(content, list) else content


def written(root: Path) -> dict[str, Any]:
    """Everything in the folders of reports: JSON without its times, other files as they are."""
    return {
        str(file.relative_to(root)): without_time(json.loads(file.read_text()))
        if file.suffix == ".json"
        else file.read_bytes()
        for file in sorted(root.rglob("evaluation/**/*"))
    }


def alone(root: Path, tiny_model: Path, cases: Cases) -> dict[str, Any]:
    """What one process writes."""
    begin(root, tiny_model, cases)
    work(Ranks(), root, cases)
    found = written(root)
    assert found
    return found


def divided(root: Path, size: int, cases: Cases, how: Callable[..., str] = work) -> list[tuple[str, str]]:
    return Group(root / "ranks", size, how, root, cases).wait()


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    return alone(tmp_path_factory.mktemp("one"), tiny_model, SHORT)


@pytest.mark.parametrize("size", [2, 3])
def test_the_same_bits_as_one_process(tmp_path, tiny_model, short, size):
    begin(tmp_path, tiny_model, SHORT)
    ends = divided(tmp_path, size, SHORT)
    assert [end for end, _ in ends] == ["done"] * size
    assert len({said for _, said in ends}) == 1  # every rank knows all reports
    assert written(tmp_path) == short
    assert len(short) == 2 * (3 + 2) + 2 * (2 + 1)  # reports, and sums behind some of them


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    return alone(tmp_path_factory.mktemp("one"), tiny_model, LONG)


@pytest.mark.distributed
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_all_suites_the_same(tmp_path, tiny_model, long, size):
    begin(tmp_path, tiny_model, LONG)
    ends = divided(tmp_path, size, LONG)
    assert [end for end, _ in ends] == ["done"] * size
    assert written(tmp_path) == long


def differing(ranks: Ranks, root: Path, cases: Cases) -> str:
    return work(ranks, root, [(name, {**settings, "seed": ranks.rank}) for name, settings in cases])


@pytest.mark.distributed
def test_ranks_that_mean_different_things_are_refused(tmp_path, tiny_model):
    begin(tmp_path, tiny_model, [("few", FEW)])
    ends = divided(tmp_path, 2, [("few", FEW)], differing)
    assert all("has not what rank 0 has (settings.seed: 0 → 1)" in said for _, said in ends)
    assert written(tmp_path) == {}


def killed(ranks: Ranks, root: Path, cases: Cases, rank: int, batch: int) -> str:
    """Rank `rank` is killed when it begins its `batch`-th batch."""
    begun = count(1)

    class Deadly(measure.CleanBatch):
        def __init__(self, *arguments: Any) -> None:
            if ranks.rank == rank and next(begun) == batch:
                os.kill(os.getpid(), signal.SIGKILL)
            super().__init__(*arguments)

    measure.CleanBatch = Deadly
    return work(ranks, root, cases)


@pytest.mark.distributed
@pytest.mark.parametrize(("rank", "batch"), [(0, 1), (1, 1), (2, 3), (0, 4)])
def test_a_killed_rank_ends_all_and_leaves_nothing_half_written(tmp_path, tiny_model, long, rank, batch):
    cases: Cases = [("all", ALL)]
    begin(tmp_path, tiny_model, cases)
    ends = Group(tmp_path / "ranks", 3, killed, tmp_path, cases, rank, batch).wait()
    assert ends[rank][0] == "killed"
    others = [end for number, end in enumerate(ends) if number != rank]
    assert all(f"rank {rank} (process" in said for _, said in others)
    # Rank 0 takes the store with it here (not under torchrun): then nobody hears that another has said it.
    assert sorted(end for end, _ in others) == ["LostRankError", "SaidElsewhereError" if rank else "LostRankError"]
    assert written(tmp_path) == {}
    again = divided(tmp_path, 3, cases)
    assert [end for end, _ in again] == ["done"] * 3
    assert written(tmp_path) == {name: content for name, content in long.items() if name.startswith("all/")}
