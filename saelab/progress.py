"""Progress of long work: a bar with rate and time left on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

STYLES = {"waiting": "dim", "finished": "green", "diverged": "bold red"}
ENDS = ("finished", "diverged")
PLAIN_INTERVAL_S = 10.0  # without a terminal (logs, CI) a line this often says that the work is alive


class Bar(Protocol):
    """What work reports to."""

    def advance(self, amount: int, note: str = "") -> None:
        """`amount` more units are done; `note` (loss, shard, …) replaces the last one."""
        ...


class Board(Protocol):
    """What several pieces of work that go on together report to."""

    def advance(self, amount: int) -> None:
        """All of them are `amount` units further."""
        ...

    def show(self, row: str, state: str, cells: Mapping[str, str] | None = None) -> None:
        """One of them is in `state` (waiting, training, …); `cells` (column → text) replace its last ones."""
        ...


class Unseen:
    """A bar or a board that nobody looks at."""

    def advance(self, amount: int, note: str = "") -> None:
        """As `Bar` and `Board`."""

    def show(self, row: str, state: str, cells: Mapping[str, str] | None = None) -> None:
        """As `Board`."""


@contextmanager
def track(total: int | None, label: str, unit: str = "tokens", done: int = 0) -> Iterator[Bar]:
    """Show progress of `total` units on stderr (None = unknown), of which `done` were finished earlier."""
    if sys.stderr.isatty():
        with Progress(*_columns(unit), console=Console(stderr=True)) as progress:
            yield _RichBar(progress, label, total, done)
    else:
        bar = _PlainBar(total, label, unit, done)
        yield bar
        bar.close()


@contextmanager
def track_together(
    rows: Sequence[str], columns: Sequence[str], total: int, label: str, unit: str = "tokens", done: int = 0
) -> Iterator[Board]:
    """Show `total` units of work that several `rows` go through together: one bar, and a table of what they say.

    A single row is shown behind the bar, as `track` does. Without a terminal a row is a line, written when it ends.
    """
    if len(rows) == 1:
        with track(total, label, unit, done) as bar:
            yield _OneRow(bar)
    elif sys.stderr.isatty():
        console = Console(stderr=True)
        progress = Progress(*_columns(unit), console=console)
        board = _RichBoard(_RichBar(progress, label, total, done), progress, rows, columns, console)
        with Live(get_renderable=board.render, console=console, refresh_per_second=4):
            yield board
    else:
        bar = _PlainBar(total, label, unit, done)
        board = _PlainBoard(bar, rows)
        yield board
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


def _columns(unit: str) -> Sequence[ProgressColumn]:
    return (
        TextColumn("[bold]{task.description:<10}"), BarColumn(bar_width=18), TextColumn("{task.percentage:>3.0f}%"),
        _Amount(unit), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip


class _RichBar:
    def __init__(self, progress: Progress, label: str, total: int | None, done: int) -> None:
        self.progress = progress
        self.task = progress.add_task(label, total=total, completed=done, note="", begun_at=done)

    def advance(self, amount: int, note: str = "") -> None:
        self.progress.advance(self.task, amount)
        if note:
            self.progress.update(self.task, note=note)


class _OneRow:
    """A board of one row: the bar with its note."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def advance(self, amount: int) -> None:
        self.bar.advance(amount)

    def show(self, row: str, state: str, cells: Mapping[str, str] | None = None) -> None:
        self.bar.advance(0, _said(cells or {}))


class _RichBoard:
    def __init__(
        self, bar: _RichBar, progress: Progress, rows: Sequence[str], columns: Sequence[str], console: Console
    ) -> None:
        self.bar, self.progress, self.columns, self.console = bar, progress, columns, console
        self.states: dict[str, str] = dict.fromkeys(rows, "waiting")
        self.cells: dict[str, Mapping[str, str]] = {}

    def advance(self, amount: int) -> None:
        self.bar.advance(amount)

    def show(self, row: str, state: str, cells: Mapping[str, str] | None = None) -> None:
        self.states[row] = state
        self.cells[row] = cells or self.cells.get(row, {})

    def render(self) -> Group:
        """The bar above the table, so that it stays in sight when the terminal is too low for all rows."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("run", "state", *self.columns):
            table.add_column(column, justify="right" if column in self.columns else "left", no_wrap=True)
        shown = self._fitting(self.console.height - 6)
        for row in shown:
            cells = self.cells.get(row, {})
            state = Text(self.states[row], style=STYLES.get(self.states[row], ""))
            table.add_row(row, state, *(cells.get(column, "") for column in self.columns))
        if hidden := len(self.states) - len(shown):
            table.add_row(f"… and {hidden} more", "")
        return Group(self.progress.get_renderable(), table)

    def _fitting(self, lines: int) -> list[str]:
        """Rows for so many lines: all, or first those that are under way."""
        if len(self.states) <= lines:
            return list(self.states)
        order = {"diverged": 0, "finished": 2, "waiting": 3}
        return sorted(self.states, key=lambda row: order.get(self.states[row], 1))[: max(lines - 1, 1)]


class _PlainBoard:
    def __init__(self, bar: _PlainBar, rows: Sequence[str]) -> None:
        self.bar = bar
        self.states = dict.fromkeys(rows, "waiting")

    def advance(self, amount: int) -> None:
        self.bar.advance(amount)

    def show(self, row: str, state: str, cells: Mapping[str, str] | None = None) -> None:
        if self.states[row] != state and state in ENDS:
            print(f"{row}: {state}{_said(cells or {}, ' · ')}", file=sys.stderr, flush=True)
        self.states[row] = state
        states = list(self.states.values())
        self.bar.note = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))


def _said(cells: Mapping[str, str], before: str = "") -> str:
    """FVU 0.312 · L0 16 · dead 3."""
    return before + " · ".join(f"{column} {text}" for column, text in cells.items()) if cells else ""


class _PlainBar:
    def __init__(self, total: int | None, label: str, unit: str, done: int) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.begun_at = self.done = done
        self.note = ""
        self.written: tuple[int, str] | None = None
        self.started = self.last = time.monotonic()

    def advance(self, amount: int, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        if time.monotonic() - self.last >= PLAIN_INTERVAL_S:
            self._line()

    def close(self) -> None:
        if self.written != (self.done, self.note):
            self._line()

    def _line(self) -> None:
        self.last, self.written = time.monotonic(), (self.done, self.note)
        rate = (self.done - self.begun_at) / max(self.last - self.started, 1e-9)
        total = f"/{si(self.total)}" if self.total is not None else ""
        left = (
            f", {(self.total - self.done) / rate:.0f} s left" if self.total and rate and self.done < self.total else ""
        )
        note = f" · {self.note}" if self.note else ""
        print(
            f"{self.label}: {si(self.done)}{total} {self.unit} · {si(rate)}/s{left}{note}", file=sys.stderr, flush=True
        )
