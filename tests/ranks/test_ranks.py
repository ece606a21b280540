"""Processes of one job: what they tell one another, and what they say when one of them fails, ends or falls silent."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from saelab.errors import UserError
from saelab.ranks import Ranks, joined
from tests.forks import Group, wait_for, work_on


def exchange(ranks: Ranks) -> list[object]:
    shared = ranks.share("word", lambda: f"of rank {ranks.rank}")
    count, other = ranks.counter("sum"), ranks.counter("sum")  # a name used twice is two counters
    count(ranks.rank + 1)
    other(100)
    told = ranks.gather("told", str(ranks.rank * 10))
    return [shared, count(0), told, sorted(ranks.members)]


def test_three_processes_tell_one_another(tmp_path: Path) -> None:
    ends = Group(tmp_path, 3, exchange).wait()
    assert ends == [("done", "['of rank 0', 6, ['0', '10', '20'], [0, 1, 2]]")] * 3


def test_a_single_process_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined() as ranks:
        assert exchange(ranks) == ["of rank 0", 1, ["0"], []]
        ranks.check()
        assert (ranks.first, ranks.device("auto")) == (True, "auto")


@pytest.mark.parametrize(
    ("rank", "size", "sentence"),
    [("x", "2", "RANK is 'x'"), ("0", "two", "WORLD_SIZE is 'two'"), ("2", "2", "RANK is 2 but WORLD_SIZE is 2")],
)
def test_variables_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, rank: str, size: str, sentence: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match=sentence), joined():
        pass


def test_every_rank_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    second = Ranks(rank=5, size=8, local_rank=1)
    assert [second.device(name) for name in ("auto", "cuda", "cuda:3", "cpu")] == ["cuda:1", "cuda:1", "cuda:3", "cpu"]
    assert Ranks().device("auto") == "auto"
    with pytest.raises(UserError, match="rank 5 is number 3 on its machine, which has 2 GPUs"):
        Ranks(rank=5, size=8, local_rank=2).device("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert second.device("auto") == "auto"


def mistake_of_one(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise UserError("the disk is full")
    ranks.gather("never")


def mistake_of_all(ranks: Ranks) -> None:
    raise UserError("no such site")


def bug_of_one(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise ValueError("not a number")
    ranks.gather("never")


def test_a_mistake_ends_all_and_is_said_by_the_one_that_met_it(tmp_path: Path) -> None:
    ends = Group(tmp_path, 3, mistake_of_one).wait()
    told = "SaidElsewhereError", "the disk is full"
    assert ends == [told, ("UserError", "the disk is full"), told]


def test_a_mistake_of_all_is_said_once(tmp_path: Path) -> None:
    ends = Group(tmp_path, 3, mistake_of_all).wait()
    assert sorted(kind for kind, _ in ends) == ["SaidElsewhereError", "SaidElsewhereError", "UserError"]
    assert {sentence for _, sentence in ends} == {"no such site"}


def test_a_bug_keeps_its_traceback_and_ends_the_others(tmp_path: Path) -> None:
    first, second = Group(tmp_path, 2, bug_of_one).wait()
    assert second == ("ValueError", "not a number")
    assert first[0] == "SaidElsewhereError"
    assert first[1].startswith("rank 1 (process ")
    assert first[1].endswith("stopped: ValueError: not a number")


def kills_itself(ranks: Ranks, victim: int) -> None:
    ranks.gather("here")
    if ranks.rank == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    work_on(ranks)


def test_a_killed_rank_is_named_once(tmp_path: Path) -> None:
    group = Group(tmp_path, 3, kills_itself, 2)
    ends = group.wait()
    assert ends[2] == ("killed", "")
    assert sorted(kind for kind, _ in ends[:2]) == ["LostRankError", "SaidElsewhereError"]
    for _, sentence in ends[:2]:
        assert f"rank 2 (process {group.processes[2].pid} on " in sentence
        assert "ended without a word" in sentence
        assert "the same command continues" in sentence


def test_when_the_rank_that_keeps_the_store_is_killed_the_others_end(tmp_path: Path) -> None:
    ends = Group(tmp_path, 3, kills_itself, 0).wait()
    assert ends[0] == ("killed", "")
    for kind, sentence in ends[1:]:
        assert kind == "LostRankError"
        assert "rank 0" in sentence


def falls_silent(ranks: Ranks) -> None:
    ranks.gather("here")
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    work_on(ranks)


def test_a_rank_that_hangs_is_named(tmp_path: Path) -> None:
    group = Group(tmp_path, 2, falls_silent, silence_s=3.0)
    wait_for(lambda: not group.processes[0].is_alive())
    group.processes[1].kill()
    (kind, sentence), _ = group.wait()
    assert kind == "LostRankError"
    assert f"rank 1 (process {group.processes[1].pid} on " in sentence
    assert "no sign of life for 3 s" in sentence


def gets_sigterm(ranks: Ranks) -> None:
    ranks.gather("here")
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    work_on(ranks)


def test_sigterm_ends_all_ranks_with_one_sentence(tmp_path: Path) -> None:
    ends = Group(tmp_path, 2, gets_sigterm).wait()
    sentence = "stopped by SIGTERM; the same command continues"
    assert ends == [("SaidElsewhereError", sentence), ("UserError", sentence)]


def sigterm_after_a_death(ranks: Ranks) -> None:
    """As torchrun does: one has died, the others are told to end."""
    ranks.gather("here")
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.members[1].ended()
    wait_for(ranks.members[1].ended)
    os.kill(os.getpid(), signal.SIGTERM)
    work_on(ranks)


def test_sigterm_after_a_death_names_the_dead(tmp_path: Path) -> None:
    ends = Group(tmp_path, 3, sigterm_after_a_death).wait()
    assert sorted(kind for kind, _ in ends) == ["LostRankError", "SaidElsewhereError", "killed"]
    assert all("rank 1 (process " in sentence for kind, sentence in ends if kind != "killed")
