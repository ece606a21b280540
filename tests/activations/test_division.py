"""A harvest shared among processes: the same bytes for any number of them, and nobody waits for the dead."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from saelab.activations import HarvestConfig, Manifest
from saelab.activations.division import Work, claims, passes
from saelab.activations.harvest import harvest
from saelab.activations.ledger import Ledger
from saelab.activations.manifest import CorpusPlace
from saelab.config import to_yaml
from saelab.corpora import pack
from saelab.disk import ActivationPaths, write_text
from saelab.errors import UserError
from saelab.models import LanguageModel
from saelab.ranks import Ranks
from tests.activations.conftest import SITE
from tests.activations.test_harvest import unfinish
from tests.activations.test_resume import contents
from tests.forks import Group, Torchrun, wait_for

Settings = Callable[..., HarvestConfig]


def test_missing_shards_come_first_and_each_goes_to_one(tmp_path: Path):
    count = Ranks().counter("shards")
    mine, yours = claims(Work([2, 5], 7, ""), count), claims(Work([2, 5], 7, ""), count)
    assert [next(mine), next(yours), next(yours), next(mine)] == [2, 5, 7, 8]
    assert list(claims(Work([2, 5], None, ""), Ranks().counter("shards"))) == [2, 5]


@pytest.mark.parametrize("starts", [[0], [0, 1, 2, 3, 4, 5, 6], [0, 3], [0, 5]])
def test_passes_are_the_same_wherever_reading_begins(settings: Settings, model: LanguageModel, starts: list[int]):
    config = settings()
    whole = list(pack(config.corpus, model.tokenizer, config.policy, config.batch, limit=config.rows))  # type: ignore[arg-type]
    places = {n: CorpusPlace(**_place(whole[n * 4].start)) for n in starts}
    made = list(passes(config, model.tokenizer, iter([1, 3, 6, 9]), places))  # type: ignore[arg-type]
    assert [(number, rows.start.row) for number, rows in made] == [
        *((1, row) for row in (32, 40, 48, 56)), *((3, row) for row in (96, 104, 112, 120)), (6, 192),
    ]  # fmt: skip
    for _, rows in made:
        assert rows.ids.equal(whole[rows.start.row // 8].ids)


def _place(cursor) -> dict[str, int]:
    return {"document": cursor.document, "token": cursor.token, "row": cursor.row}


def share(ranks: Ranks, config: HarvestConfig, out: Path) -> list[str]:
    said: list[str] = []
    harvest(config, out, ranks=ranks, say=said.append)
    return [line.split()[0] for line in said]


@pytest.mark.parametrize("size", [2, 3])
def test_the_same_bytes_for_any_number_of_processes(tmp_path: Path, settings: Settings, harvested: Path, size: int):
    out = tmp_path / "shared"
    ends = Group(tmp_path / "ends", size, share, settings(gradients=True), out).wait()
    assert contents(out) == contents(harvested)
    assert [kind for kind, _ in ends] == ["done"] * size
    assert "'sites', 'tokens'" in ends[0][1]
    assert "'ranks'" in ends[0][1]
    assert ends[0][1].count("'tokens'") == 2  # the plan and the report
    assert {said for _, said in ends[1:]} == {"[]"}  # one speaks for all


def test_shards_that_are_there_are_not_made_again(tmp_path: Path, settings: Settings, harvested: Path):
    out = Path(shutil.copytree(harvested, tmp_path / "shared"))
    unfinish(out, [0, 2, 3])
    (out / f"{SITE}/x-00002.safetensors").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*-00000.safetensors")}
    Group(tmp_path / "ends", 2, share, settings(gradients=True), out).wait()
    assert contents(out) == contents(harvested)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def share_what_differs(ranks: Ranks, configs: list[HarvestConfig], outs: list[Path]) -> None:
    harvest(configs[ranks.rank], outs[ranks.rank], ranks=ranks)


def test_ranks_that_mean_different_things_are_refused(tmp_path: Path, settings: Settings, model: LanguageModel):
    out = tmp_path / "a"
    configs = [settings(), settings(tokens=640)]
    ends = Group(tmp_path / "ends", 2, share_what_differs, configs, [out, out]).wait()
    assert sorted(kind for kind, _ in ends) == ["SaidElsewhereError", "UserError"]
    for _, sentence in ends:
        assert "rank 1 (process " in sentence
        assert "settings.tokens: 6400 → 640" in sentence
    assert not out.exists()


def test_ranks_that_do_not_share_a_folder_are_refused(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    ends = Group(tmp_path / "ends", 2, share_alone, settings(), [tmp_path / "a", tmp_path / "b"]).wait()
    assert ends[1][0] == "UserError"
    assert f"does not find in {tmp_path / 'b'} what rank 0 has written" in ends[1][1]
    assert ends[0][0] == "SaidElsewhereError"


def share_alone(ranks: Ranks, config: HarvestConfig, outs: list[Path]) -> None:
    from saelab.activations import beginning

    beginning._SEEN_S = 0.5
    share_what_differs(ranks, [config] * ranks.size, outs)


def share_until_killed(ranks: Ranks, config: HarvestConfig, out: Path, victim: int, shards: int) -> None:
    """The victim dies while it writes its next shard after so many are there."""
    if ranks.rank == victim:
        replace = os.replace

        def deadly(source: str, target: str) -> None:
            if len(list(out.glob("entries/[0-9]*"))) >= shards:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = deadly
    harvest(config, out, ranks=ranks)


@pytest.mark.parametrize(("victim", "shards"), [(1, 0), (1, 3), (2, 10), (0, 5), (0, 25)])
def test_a_rank_that_dies_ends_the_harvest_and_a_rerun_finishes_it(
    tmp_path: Path, settings: Settings, model: LanguageModel, victim: int, shards: int
):
    """There are 25 shards: in the last case rank 0 dies as it writes the last manifest."""
    out, config = tmp_path / "shared", settings(shard_tokens=256, sites=[str(SITE)])
    group = Group(tmp_path / "ends", 3, share_until_killed, config, out, victim, shards)
    ends = group.wait()
    assert ends[victim][0] == "killed"
    others = [end for rank, end in enumerate(ends) if rank != victim]
    assert {kind for kind, _ in others} <= {"LostRankError", "SaidElsewhereError"}
    assert any(kind == "LostRankError" and f"rank {victim}" in sentence for kind, sentence in others)
    assert not Manifest.load(out).finished
    assert len(Ledger(out).shards) >= shards
    assert contents(harvest(config, out, model=model)) == contents(harvest(config, tmp_path / "whole", model=model))


def test_a_model_over_all_devices_is_not_for_several_processes(tmp_path: Path, settings: Settings):
    with pytest.raises(UserError, match="use one of the two"):
        harvest(settings(device_map="auto"), tmp_path / "a", ranks=Ranks(0, 2))


@pytest.fixture
def long(settings: Settings) -> HarvestConfig:
    """40 shards."""
    return settings(tokens=10_240, shard_tokens=256)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_torchrun_makes_the_same_bytes(tmp_path: Path, long: HarvestConfig, model: LanguageModel, size: int):
    write_text(tmp_path / "harvest.yaml", to_yaml(long))
    out = tmp_path / "shared"
    code, said = Torchrun(tmp_path, size, "harvest", tmp_path / "harvest.yaml", "--out", out).end()
    assert code == 0, said
    assert said.count("the activations are in") == 1
    assert said.count("ranks ") == 1
    assert contents(out) == contents(harvest(long, tmp_path / "whole", model=model))


@pytest.mark.slow
def test_under_torchrun_a_dead_rank_is_named_and_max_restarts_recovers(
    tmp_path: Path, long: HarvestConfig, model: LanguageModel
):
    write_text(tmp_path / "harvest.yaml", to_yaml(long))
    out = tmp_path / "shared"
    words = "harvest", tmp_path / "harvest.yaml", "--out", out
    run = Torchrun(tmp_path, 2, *words, options=["--max-restarts", "1"])
    wait_for(lambda: len(list(out.glob("entries/[0-9]*"))) >= 3)
    victim = run.pid(1)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    code, said = run.end()
    assert code == 0, said
    assert said.count(f"saelab: rank 1 (process {victim} on ") == 1
    assert said.count("saelab: ") == 1
    assert "shards of an earlier run" in said
    assert "Traceback" not in said
    assert contents(out) == contents(harvest(long, tmp_path / "whole", model=model))


@pytest.mark.slow
def test_under_torchrun_the_others_stop_and_a_rerun_with_one_process_finishes(
    tmp_path: Path, long: HarvestConfig, model: LanguageModel
):
    write_text(tmp_path / "harvest.yaml", to_yaml(long))
    out = tmp_path / "shared"
    run = Torchrun(tmp_path, 3, "harvest", tmp_path / "harvest.yaml", "--out", out)
    wait_for(lambda: len(list(out.glob("entries/[0-9]*"))) >= 3)
    victim = run.pid(0)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    code, said = run.end()
    assert code != 0
    assert said.count(f"saelab: rank 0 (process {victim} on ") == 1
    assert said.count("saelab: ") == 1
    assert not Manifest.load(out).finished
    assert ActivationPaths(out).entries.is_dir()
    assert contents(harvest(long, out, model=model)) == contents(harvest(long, tmp_path / "whole", model=model))
