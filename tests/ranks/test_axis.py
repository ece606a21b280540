"""Exchanges of tensors: what comes out, and that the bytes that are counted are those that torch was given."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saelab.errors import UserError
from saelab.ranks import Ranks
from saelab.ranks.axis import Axis
from saelab.ranks.mesh import Mesh, meshed
from tests.forks import Group

DTYPES = [torch.float32, torch.float64, torch.int64, torch.int32]


@given(st.integers(1, 9), st.integers(0, 40))
def test_parts_lie_in_a_row_and_differ_by_one_at_most(size: int, total: int):
    parts = Axis(0, size).parts(total)
    assert [n for part in parts for n in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [len(part) for part in parts] == sorted(map(len, parts), reverse=True)
    assert parts == [Axis(rank, size).part(total) for rank in range(size)]


def test_one_process_gets_back_what_it_gives():
    mesh, x = Mesh(), torch.arange(6.0).reshape(3, 2)
    for axis in (mesh.data, mesh.latent, mesh.world):
        assert axis.part(7) == range(7)
        for exchanged in (axis.sum, axis.least, axis.gather, axis.sum_of_part):
            assert exchanged(x, "x") is x
        assert axis.broadcast(x, 0, "x") is x
        axis.begin_broadcast(x.T, 0, "x")()
    assert not mesh.received


def exchange_all(ranks: Ranks, data: int, latent: int) -> str:
    """Each exchange on each axis, against what this rank can compute alone; what differs, by name."""
    wrong: list[str] = []
    given: Counter[str] = Counter()
    with listening(given), meshed(ranks, data, latent) as mesh:
        if (mesh.data.index, mesh.latent.index) != divmod(ranks.rank, latent) or mesh.world.index != ranks.rank:
            wrong.append("place")
        for name in ("data", "latent", "world"):
            axis: Axis = getattr(mesh, name)
            for case, got, want in exchanges(axis):
                if not (got.dtype == want.dtype and got.shape == want.shape and got.equal(want)):
                    wrong.append(f"{name} {case}: {got.tolist()}, not {want.tolist()}")
        if set(mesh.received) - set(given) or any(mesh.received[key] != count for key, count in given.items()):
            wrong.append(f"counted {dict(mesh.received)}, given {dict(given)}")
    return json.dumps([wrong, sum(given.values())])


def exchanges(axis: Axis) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, what came, what should have come."""
    n, r = axis.size, axis.index
    for dtype in DTYPES:
        alls = [torch.arange(6).reshape(3, 2).to(dtype) * 10**rank - 3 for rank in range(n)]
        total = torch.stack(alls).sum(0, dtype=dtype)
        yield f"sum {dtype}", axis.sum(alls[r].clone(), "sum"), total
        yield f"sum of columns {dtype}", axis.sum(alls[r].clone().T, "sum"), total.T
        yield f"least {dtype}", axis.least(-alls[r], "least"), torch.stack([-x for x in alls]).amin(0)
        yield f"gather {dtype}", axis.gather(alls[r], "gather"), torch.cat(alls)
        yield f"gather columns {dtype}", axis.gather(alls[r].T, "gather"), torch.cat([x.T for x in alls])
        yield f"broadcast {dtype}", axis.broadcast(alls[r].clone(), n - 1, "broadcast"), alls[n - 1]
    for lengths in ([2 * rank % 3 for rank in range(n)], list(range(n)), [0] * n, [0, *[3] * (n - 1)]):
        for dtype in (torch.float32, torch.bool, torch.int64):
            alls = [(torch.arange(2 * m).reshape(m, 2) % 3 + rank).to(dtype) for rank, m in enumerate(lengths)]
            yield f"gather of {lengths} {dtype}", axis.gather(alls[r], "uneven", lengths), torch.cat(alls)
    for rows in (0, 1, 2, 5, 8):
        for shape in ((rows,), (rows, 2)):
            alls = [torch.arange(torch.Size(shape).numel()).reshape(shape) * 3.0**rank for rank in range(n)]
            own = axis.part(rows)
            want = torch.stack(alls).sum(0)[own.start : own.stop]
            yield f"sum of a part of {rows}", axis.sum_of_part(alls[r].clone(), "part"), want
    number = axis.sum(torch.tensor(r + 1, dtype=torch.int64), "number")
    yield "sum of a number", number, torch.tensor(n * (n + 1) // 2)
    nothing = torch.zeros(0, 3)
    yield "sum of nothing", axis.sum(nothing, "nothing"), nothing
    yield "least of nothing", axis.least(nothing, "nothing"), nothing
    yield "broadcast of nothing", axis.broadcast(nothing, 0, "nothing"), nothing
    later = torch.full((4,), float(r))
    wait = axis.begin_broadcast(later, 0, "later")
    wait()
    yield "broadcast that is waited for", later, torch.zeros(4)


@contextmanager
def listening(given: Counter[str]) -> Iterator[None]:
    """Count on the way into torch what each rank of a ring receives; the purpose is what axis.py was called with."""
    purposes: list[str] = []
    heard: dict[str, Callable[..., Any]] = {}

    def counted(name: str, nbytes: Callable[..., int]) -> None:
        heard[name] = real = getattr(dist, name)

        def instead(*arguments: Any, group: Any, **others: Any) -> Any:
            given[purposes[-1]] += nbytes(dist.get_world_size(group), dist.get_rank(group), *arguments, **others)
            return real(*arguments, group=group, **others)

        setattr(dist, name, instead)

    counted("all_reduce", lambda n, r, x, how: 2 * (n - 1) * x.numel() * x.element_size() // n)
    counted("all_gather_single", lambda n, r, out, x: out.numel() * out.element_size() * (n - 1) // n)
    counted("reduce_scatter_single", lambda n, r, out, x: x.numel() * x.element_size() * (n - 1) // n)
    counted("broadcast", lambda n, r, x, group_src, async_op: 0 if group_src == r else x.numel() * x.element_size())
    said = {name: getattr(Axis, name) for name in ("sum", "least", "gather", "sum_of_part", "begin_broadcast")}

    def speaking(real: Callable[..., Any], place: int) -> Callable[..., Any]:
        def instead(axis: Axis, *arguments: Any) -> Any:
            purposes.append(arguments[place])
            return real(axis, *arguments)

        return instead

    for name, real in said.items():
        setattr(Axis, name, speaking(real, 2 if name == "begin_broadcast" else 1))
    try:
        yield
    finally:
        for name, real in said.items():
            setattr(Axis, name, real)
        for name, real in heard.items():
            setattr(dist, name, real)


@pytest.mark.parametrize(("data", "latent"), [(1, 2), (3, 1), (2, 2)])
def test_every_exchange_on_every_axis(tmp_path: Path, data: int, latent: int):
    for kind, said in Group(tmp_path, data * latent, exchange_all, data, latent).wait():
        assert kind == "done", said
        wrong, nbytes = json.loads(said)
        assert not wrong
        assert nbytes > 0


def misuse(ranks: Ranks) -> str:
    """Bugs of ours are seen as what they are, at once, and no other rank is blamed."""
    said: list[str] = []
    with meshed(ranks, 1, 2) as mesh:
        for wrong in (
            lambda: mesh.latent.gather(torch.zeros(2), "x", [3, 3]),
            lambda: mesh.latent.gather(torch.zeros(2), "x", [2, 2, 2]),
            lambda: mesh.latent.broadcast(torch.zeros(2, 3).T, 0, "x"),
            lambda: mesh.latent.sum(torch.zeros(3, dtype=torch.float8_e5m2), "x"),
        ):
            try:
                wrong()
            except (ValueError, RuntimeError) as error:
                said.append(type(error).__name__)
    return json.dumps(said)


def two_grids_one_behind_the_other(ranks: Ranks) -> str:
    sums = []
    for data, latent in ((2, 1), (1, 2)):
        with meshed(ranks, data, latent) as mesh:
            sums.append(int(mesh.world.sum(torch.tensor(ranks.rank + 1), "x")))
    try:
        with meshed(ranks, 2, 2):
            pass
    except UserError as error:
        return json.dumps([sums, misuse(ranks), str(error)])
    raise AssertionError


def test_a_job_may_have_one_grid_after_another(tmp_path: Path):
    for kind, said in Group(tmp_path, 2, two_grids_one_behind_the_other).wait():
        assert kind == "done", said
        sums, misused, refused = json.loads(said)
        assert sums == [3, 3]
        assert json.loads(misused) == [*["ValueError"] * 3, "RuntimeError"]
        assert "data = 2 times parallel.latent = 2 is 4, but there are 2 ranks" in refused
