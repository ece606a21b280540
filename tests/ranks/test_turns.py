"""Items in turns: all results on the first rank, in order, to the same bits, whatever the number of ranks."""

import json
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saelab.errors import UserError
from saelab.ranks import Ranks
from saelab.ranks.axis import Axis
from saelab.ranks.mesh import meshed
from saelab.ranks.turns import from_first, in_turns, packed, unpacked
from tests.forks import Group

COUNTS = (0, 1, 2, 3, 7)
DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
)  # fmt: skip


def result(item: int) -> dict[str, Tensor]:
    """Different sizes and dtypes, some of them empty."""
    return {
        "x": torch.randn(item, 3, generator=torch.Generator().manual_seed(item)),
        "count": torch.tensor(item),
        "odd": torch.arange(item) % 2 == 1,
        "strided": torch.arange(6, dtype=torch.float64).reshape(2, 3).T,
    }


def told(found: dict[str, Tensor]) -> list:
    return [(name, str(t.dtype), list(t.shape), t.tolist()) for name, t in found.items()]


def divide(ranks: Ranks) -> str:
    """Everything that a group of ranks is asked for here."""
    with meshed(ranks, ranks.size, 1) as mesh:
        axis = mesh.world
        worked: list[int] = []

        def work(item: int) -> dict[str, Tensor]:
            worked.append(item)
            return result(item)

        def talking(n: int) -> Iterator[int]:
            """Items whose iterator exchanges something of its own."""
            for item in range(n):
                yield int(axis.sum(torch.tensor(item), "own")) // axis.size

        found = [[told(one) for one in in_turns(axis, range(n), work)] for n in COUNTS]
        talked = [told(one) for one in in_turns(axis, talking(7), work)]
        received = mesh.received["results"]
        here = [result(3), {}, result(5)] if axis.index == 0 else []
        handed = [[told(one) for one in from_first(axis, items)] for items in (here, [])]
    return json.dumps({"found": found, "talked": talked, "worked": worked, "handed": handed, "received": received})


@pytest.mark.parametrize("size", [2, 3])
def test_the_first_rank_gets_every_result_in_order(tmp_path, size):
    ends = Group(tmp_path, size, divide).wait()
    assert [end for end, _ in ends] == ["done"] * size
    first, *others = (json.loads(said) for _, said in ends)
    expected = json.loads(json.dumps([[told(result(item)) for item in range(n)] for n in COUNTS]))
    assert first["found"] == expected
    assert first["talked"] == expected[-1]
    assert all(other["found"] == [[] for _ in COUNTS] and other["talked"] == [] for other in others)
    for rank, said in enumerate((first, *others)):
        assert said["worked"] == [item for n in (*COUNTS, 7) for item in range(rank, n, size)]
    travelled = [item for n in (*COUNTS, 7) for item in range(n) if item % size]
    assert first["received"] == sum(8 + len(packed(result(item))) for item in travelled)
    assert all(other["received"] == 0 for other in others)
    handed = json.loads(json.dumps([[told(one) for one in (result(3), {}, result(5))], []]))
    assert all(said["handed"] == handed for said in (first, *others))


def stumble(ranks: Ranks) -> None:
    def work(item: int) -> dict[str, Tensor]:
        if item == 4:
            raise UserError("item 4 is not what it should be")
        return {"item": torch.tensor(item)}

    with meshed(ranks, ranks.size, 1) as mesh:
        for _ in in_turns(mesh.world, range(100), work):
            pass


def test_an_error_on_one_rank_ends_all_with_its_sentence(tmp_path):
    ends = Group(tmp_path, 3, stumble).wait()
    assert sorted(end for end, _ in ends) == ["SaidElsewhereError", "SaidElsewhereError", "UserError"]
    assert {said for _, said in ends} == {"item 4 is not what it should be"}
    assert ends[1][0] == "UserError"


def test_one_process_works_when_it_is_asked_and_copies_nothing():
    worked: list[int] = []
    made: list[Tensor] = []

    def work(item: int) -> dict[str, Tensor]:
        worked.append(item)
        made.append(torch.ones(2))
        return {"x": made[-1]}

    results = in_turns(Axis(), range(3), work)
    assert worked == []
    assert next(results)["x"] is made[0]
    assert worked == [0]
    assert len(list(results)) == 2
    item = {"x": torch.ones(1)}
    assert next(from_first(Axis(), [item]))["x"] is item["x"]


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)), max_size=5))
def test_bytes_hold_any_dtype_and_shape(described):
    tensors = {
        f"tensor {i}": (torch.arange(torch.Size(shape).numel()) % 2).to(dtype).reshape(shape)
        for i, (dtype, shape) in enumerate(described)
    }
    back = unpacked(packed(tensors))
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(back[name], tensor)


def test_bytes_hold_what_is_no_number():
    odd = torch.tensor([torch.nan, torch.inf, -0.0, 5e-324], dtype=torch.float64)
    assert torch.equal(unpacked(packed({"odd": odd}))["odd"].view(torch.int64), odd.view(torch.int64))
