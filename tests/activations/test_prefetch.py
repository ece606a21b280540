"""The thread that works ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from saelab.activations.prefetch import prefetch


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "saelab-prefetch"]


def test_items_come_in_order():
    assert list(prefetch(iter(range(100)), depth=3)) == list(range(100))


def test_none_is_an_item_like_others():
    assert list(prefetch(iter([None, 1, None]))) == [None, 1, None]


def test_an_exception_comes_after_the_items_before_it():
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("at three")

    items = prefetch(broken(), depth=5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="at three"):
        next(items)


def test_no_more_than_depth_items_are_made_ahead():
    made: list[int] = []

    def counting() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    ahead = prefetch(counting(), depth=4)
    next(ahead)
    time.sleep(0.3)
    assert len(made) <= 1 + 4 + 1  # delivered, waiting in the queue, and in the thread's hand
    ahead.close()  # type: ignore[attr-defined]


def test_dropping_it_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threads()
    ahead = prefetch(endless(), depth=2)
    next(ahead)
    assert len(threads()) == len(before) + 1
    del ahead
    assert closed.wait(2)
    assert len(threads()) == len(before)
