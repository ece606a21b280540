"""Two groups in the memory of one."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.activations.columns import Column, Rows
from saelab.activations.ring import Ring
from tests.activations.conftest import SITE


def rows(first: int, n: int) -> Rows:
    numbers = torch.arange(first, first + n)
    return Rows({Column(SITE): numbers[:, None] * torch.tensor([1.0, -1.0])}, numbers)


def read(ring: Ring, wanted: torch.Tensor) -> list[int]:
    taken = ring.take(wanted)
    assert torch.equal(taken.columns[Column(SITE)][:, 0], taken.tokens.float())
    assert torch.equal(taken.columns[Column(SITE)][:, 1], -taken.tokens.float())
    return taken.tokens.tolist()


def test_by_hand():
    ring = Ring(4)
    assert ring.put(rows(0, 3)) is None
    rest = ring.put(rows(3, 3))
    assert rest is not None
    assert rest.tokens.tolist() == [4, 5]
    order = torch.tensor([2, 0, 3, 1])
    assert read(ring, order[:2]) == [2, 0]
    ring.deliver(order[:2])
    assert (ring.room, ring.filled, ring.ahead) == (2, 4, 0)
    assert ring.put(rest) is None
    assert (ring.room, ring.filled, ring.ahead) == (0, 4, 2)
    assert read(ring, order[2:]) == [3, 1]  # still there
    ring.turn()
    assert (ring.room, ring.filled, ring.ahead) == (2, 2, 0)
    ring.put(rows(6, 2))
    assert read(ring, torch.arange(4)) == [4, 5, 6, 7]


@settings(deadline=None)
@given(capacity=st.integers(1, 20), seed=st.integers(0, 100), data=st.data())
def test_every_group_is_read_as_it_was_put(capacity: int, seed: int, data: st.DataObject):
    generator = torch.Generator().manual_seed(seed)
    ring, made = Ring(capacity), 0

    def put() -> None:
        nonlocal made
        n = data.draw(st.integers(1, 30))
        rest = ring.put(rows(made, n))
        made += n - (0 if rest is None else len(rest))

    for group in range(4):
        while ring.filled < capacity:
            put()
        order = torch.randperm(capacity, generator=generator)
        at = 0
        while at < capacity:
            n = min(data.draw(st.integers(1, 6)), capacity - at)
            assert read(ring, order[at : at + n]) == (group * capacity + order[at : at + n]).tolist()
            at += n
            ring.deliver(order[:at])
            if data.draw(st.booleans()):
                put()
            assert made <= group * capacity + capacity + at  # never more than was delivered
        ring.turn()


def test_turning_early_gives_the_rest_of_the_room_away():
    ring = Ring(3)
    ring.put(rows(0, 3))
    ring.deliver(torch.tensor([2]))
    ring.put(rows(3, 1))
    ring.turn()
    assert (ring.filled, ring.room) == (1, 2)
    ring.put(rows(4, 2))
    assert read(ring, torch.arange(3)) == [3, 4, 5]


def test_memory_is_taken_once():
    ring = Ring(8)
    ring.put(rows(0, 8))
    assert ring.rows is not None
    memory = ring.rows.columns[Column(SITE)].data_ptr()
    for group in range(1, 4):
        ring.deliver(torch.arange(8))
        ring.put(rows(8 * group, 8))
        ring.turn()
    assert ring.rows.columns[Column(SITE)].data_ptr() == memory
    assert ring.rows.columns[Column(SITE)].shape == (8, 2)
