"""Progress of long work: a bar with rate and time left on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

PLAIN_INTERVAL_S = 10.0  # without a terminal (logs, CI) a line this often says that the work is alive


class Bar(Protocol):
    """What work reports to."""

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more units are done; `note` (loss, shard, …) replaces the last one."""
        ...


@contextmanager
def track(total: int | None, label: str, unit: str = "tokens", done: int = 0) -> Iterator[Bar]:
    """Show progress of `total` units on stderr (None = unknown), of which `done` were finished earlier."""
    if sys.stderr.isatty():
        columns = (
            TextColumn("[bold]{task.description:<10}"), BarColumn(bar_width=28), TextColumn("{task.percentage:>3.0f}%"),
            _Amount(unit), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(label, total=total, completed=done, note="", begun_at=done)
            yield _RichBar(progress, task)
    else:
        bar = _PlainBar(total, label, unit, done)
        yield bar
        bar.close()


def si(number: float) -> str:
    """1234567 → "1.23M": three significant digits with a metric suffix."""
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.3g}"


class _Amount(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        rate = (task.completed - task.fields["begun_at"]) / elapsed if elapsed > 0 else 0.0
        total = f"/{si(task.total)}" if task.total is not None else ""
        return Text(f"{si(task.completed)}{total} {self.unit} · {si(rate)}/s", style="cyan")


class _RichBar:
    def __init__(self, progress: Progress, task: int) -> None:
        self.progress, self.task = progress, task

    def advance(self, amount: int, note: str = "") -> None:
        self.progress.advance(self.task, amount)  # type: ignore[arg-type]  # TaskID is a NewType of int
        if note:
            self.progress.update(self.task, note=note)  # type: ignore[arg-type]


class _PlainBar:
    def __init__(self, total: int | None, label: str, unit: str, done: int) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.begun_at = self.done = done
        self.note = ""
        self.started = self.last = time.monotonic()

    def advance(self, amount: int, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        if time.monotonic() - self.last >= PLAIN_INTERVAL_S:
            self._line()

    def close(self) -> None:
        self._line()

    def _line(self) -> None:
        self.last = time.monotonic()
        rate = (self.done - self.begun_at) / max(self.last - self.started, 1e-9)
        total = f"/{si(self.total)}" if self.total is not None else ""
        left = (
            f", {(self.total - self.done) / rate:.0f} s left" if self.total and rate and self.done < self.total else ""
        )
        note = f" · {self.note}" if self.note else ""
        print(
            f"{self.label}: {si(self.done)}{total} {self.unit} · {si(rate)}/s{left}{note}", file=sys.stderr, flush=True
        )
