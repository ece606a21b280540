"""Work done ahead in a thread: the next items are ready when they are asked for."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import TypeVar

T = TypeVar("T")
_WAIT_S = 0.05  # how often a waiting thread looks whether it should stop


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Items in the same order, up to `depth` of them made ahead by a thread that this generator owns.

    An exception of `items` is raised here, after the items before it. Closing or dropping the generator ends the
    thread, and closes `items` if it is a generator.
    """
    queue: Queue[tuple[T | None, BaseException | None]] = Queue(depth)
    stop = threading.Event()

    def offer(item: T | None, end: BaseException | None) -> None:
        while not stop.is_set():
            try:
                queue.put((item, end), timeout=_WAIT_S)
            except Full:
                continue
            break

    def work() -> None:
        end: BaseException = StopIteration()
        try:
            for item in items:
                offer(item, None)
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001 (handed over to the consumer, who raises it)
            end = error
        finally:
            if (close := getattr(items, "close", None)) is not None:
                close()
        offer(None, end)

    def empty() -> None:
        with suppress(Empty):
            while True:
                queue.get_nowait()

    def leave() -> None:
        stop.set()
        empty()  # it may wait for room
        thread.join()
        empty()
        queue.put((None, StopIteration()))  # for another thread that waits for an item

    thread = threading.Thread(target=work, name="saelab-prefetch", daemon=True)
    thread.start()
    atexit.register(leave)  # at the interpreter's end a thread that still works could not be joined any more
    try:
        while True:
            item, end = queue.get()
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            yield item  # pyright: ignore[reportReturnType]  # an item whenever there is no end
    finally:
        if not stop.is_set():
            leave()
            atexit.unregister(leave)
