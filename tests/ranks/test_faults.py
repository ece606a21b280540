"""What becomes of ranks that exchange tensors when one of them is killed, stopped, interrupted, or in error."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from saelab.errors import UserError
from saelab.ranks import Ranks, watch
from saelab.ranks.mesh import Mesh, meshed
from tests.forks import Group, wait_for


def exchange_for_ever(ranks: Ranks, begun: Path, data: int, latent: int) -> None:
    """Work as a training does: a little computation, exchanges on every axis, nothing that looks after the others."""
    watch._GRACE_S = 1.0
    with meshed(ranks, data, latent) as mesh:
        for number in range(10**9):
            step(mesh, number)
            if number == 3:
                (begun / str(ranks.rank)).touch()


def step(mesh: Mesh, number: int) -> None:
    x = torch.full((1000,), float(number))
    mesh.latent.sum(x, "latent")
    mesh.data.gather(x, "data")
    mesh.world.sum(x, "world")


def begin(folder: Path, data: int, latent: int, silence_s: float = 60.0) -> Group:
    """A group at work."""
    begun = folder / "begun"
    begun.mkdir()
    size = data * latent
    group = Group(folder / "ends", size, exchange_for_ever, begun, data, latent, silence_s=silence_s)
    wait_for(lambda: len(list(begun.iterdir())) == size)
    return group


@pytest.mark.parametrize(("data", "latent", "victim"), [(1, 2, 0), (2, 2, 3)])
def test_a_rank_that_is_killed_in_an_exchange_is_named(tmp_path: Path, data: int, latent: int, victim: int):
    group = begin(tmp_path, data, latent)
    pid = group.processes[victim].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    ends = group.wait()
    assert ends.pop(victim) == ("killed", "")
    assert {kind for kind, _ in ends} <= {"LostRankError", "SaidElsewhereError"}
    for _, sentence in ends:
        assert f"rank {victim} (process {pid} on " in sentence
        assert "the same command continues" in sentence


def test_a_rank_that_is_stopped_is_named_and_those_that_wait_for_it_in_torch_end(tmp_path: Path):
    """Rank 0 keeps the store here, as torchrun does otherwise, so it is not the one that is stopped."""
    group = begin(tmp_path, 1, 3, silence_s=3.0)
    pid = group.processes[1].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: not (group.processes[0].is_alive() or group.processes[2].is_alive()))
    group.processes[1].kill()
    ends = group.wait()
    assert ends.pop(1) == ("killed", "")
    sentence = f"rank 1 (process {pid} on "
    said = [said for kind, said in ends if kind in ("LostRankError", "exit code 2") and said]
    assert len(said) == 1, ends
    assert sentence in said[0]
    assert "has given no sign of life for 3 s" in said[0]
    assert "Traceback" not in said[0]
    assert {kind for kind, _ in ends} <= {"exit code 2", "LostRankError", "SaidElsewhereError"}


def fail_while_others_exchange(ranks: Ranks, error: type[Exception]) -> None:
    with meshed(ranks, 1, ranks.size) as mesh:
        for number in range(5):
            step(mesh, number)
            if number == 3 and ranks.rank == 1:
                raise error("the disk is full")


@pytest.mark.parametrize("error", [UserError, ValueError])
def test_an_error_of_one_ends_those_that_wait_for_it_in_torch(tmp_path: Path, error: type[Exception]):
    ends = Group(tmp_path, 3, fail_while_others_exchange, error).wait()
    assert ends.pop(1) == (error.__name__, "the disk is full")
    assert {kind for kind, _ in ends} == {"SaidElsewhereError"}
    assert all(sentence.endswith("the disk is full") for _, sentence in ends)


def test_ctrl_c_ends_all_and_one_says_so(tmp_path: Path):
    group = begin(tmp_path, 1, 3)
    for process in group.processes:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
    kinds = sorted(kind for kind, _ in group.wait())
    assert kinds.count("KeyboardInterrupt") == 1
    assert set(kinds) <= {"KeyboardInterrupt", "SystemExit", "SaidElsewhereError"}


def stay_away(ranks: Ranks) -> None:
    """Rank 1 dies while the others wait for it to join the group."""
    watch._GRACE_S = 1.0
    if ranks.rank == 1:
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    with meshed(ranks, 1, ranks.size):
        raise AssertionError


def test_a_rank_that_dies_before_the_groups_are_made_is_named(tmp_path: Path):
    ends = Group(tmp_path, 3, stay_away).wait()
    assert ends.pop(1) == ("killed", "")
    said = [said for kind, said in ends if kind in ("LostRankError", "exit code 2") and said]
    assert len(said) == 1, ends
    assert "rank 1 (process " in said[0]


def disagree(ranks: Ranks, values: list[str]) -> None:
    ranks.agree("config", values[ranks.rank], "the config")


def test_ranks_that_disagree_are_refused_by_one_sentence(tmp_path: Path):
    assert [kind for kind, _ in Group(tmp_path / "same", 2, disagree, ["a", "a"]).wait()] == ["done", "done"]
    group = Group(tmp_path / "other", 3, disagree, ["a", "a", "b" * 100])
    ends = group.wait()
    assert sorted(kind for kind, _ in ends) == ["SaidElsewhereError", "SaidElsewhereError", "UserError"]
    sentence = f"the config of rank 2 (process {group.processes[2].pid} on "
    assert all(sentence in said and "that of rank 0 is a;" in said and "b" * 78 not in said for _, said in ends)
    Ranks().agree("config", "a", "the config")


def update_one(ranks: Ranks) -> None:
    raise AssertionError("ranks of different versions never begin")


def test_versions_that_differ_are_refused(tmp_path: Path):
    ends = Group(tmp_path, 2, update_one, newer=1).wait()
    assert sorted(kind for kind, _ in ends) == ["SaidElsewhereError", "UserError"]
    for _, sentence in ends:
        assert "the software of rank 1 (process " in sentence
        assert "saelab 99 with torch" in sentence
