"""What long work shows: bars and tables on a terminal, plain lines elsewhere."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from rich.console import Console

from saelab import progress
from saelab.progress import Board, si, track, track_together

ROWS = ("topk-k16", "gradient-k16", "gated-k16")
COLUMNS = ("FVU", "dead")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal of 12 lines in memory; `export_text` says what was ever on it."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    console = Console(file=Screen(), force_terminal=True, width=100, height=12, record=True)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=console.file))
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    return console


@contextmanager
def work(rows: tuple[str, ...] = ROWS) -> Iterator[Board]:
    with track_together(rows, COLUMNS, 1000, "train", done=200) as board:
        for row in rows:
            board.show(row, "training", {"FVU": "0.500", "dead": "3"})
        board.advance(300)
        yield board


@pytest.mark.parametrize(
    ("number", "text"), [(1234567, "1.23M"), (999, "999"), (2.5e9, "2.5B"), (10_000, "10k"), (0.5, "0.5")]
)
def test_si(number: float, text: str) -> None:
    assert si(number) == text


def test_a_terminal_shows_one_bar_and_a_row_for_each(terminal: Console) -> None:
    with work() as board:
        board.show("topk-k16", "finished", {"FVU": "0.250", "dead": "0"})
        board.show("gated-k16", "diverged")
    last = terminal.export_text().split("run")[-1].splitlines()
    shown = [line.split() for line in last if "-k16" in line]
    assert shown == [
        ["topk-k16", "finished", "0.250", "0"],
        ["gradient-k16", "training", "0.500", "3"],
        ["gated-k16", "diverged", "0.500", "3"],
    ]


def test_the_bar_counts_what_was_done_before(terminal: Console) -> None:
    with work():
        pass
    assert "500/1k tokens" in terminal.export_text()


def test_a_low_terminal_shows_what_is_under_way(terminal: Console) -> None:
    rows = tuple(f"run-{number}" for number in range(20))
    with work(rows) as board:
        for row in rows[:15]:
            board.show(row, "finished")
    last = terminal.export_text().split("state")[-1]
    assert "run-15 " in last
    assert "run-14 " not in last
    assert "… and 15 more" in last


def test_without_a_terminal_a_row_is_a_line_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with work() as board:
        board.show("topk-k16", "finished", {"FVU": "0.250", "dead": "0"})
        board.show("gated-k16", "diverged")
        board.show("gated-k16", "diverged")
    first, second, bar = capsys.readouterr().err.splitlines()
    assert first == "topk-k16: finished · FVU 0.250 · dead 0"
    assert second == "gated-k16: diverged"
    assert bar.startswith("train: 500/1k tokens")
    assert bar.endswith("1 finished, 1 training, 1 diverged")


def test_a_single_row_is_a_plain_bar_with_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    with work(rows=("alone",)):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train: 500/1k tokens")
    assert line.endswith("· FVU 0.500 · dead 3")


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    with track(None, "count", "rows") as bar:
        bar.advance(3, "three")
        bar.advance(2)
    said = [line.split(" · ") for line in capsys.readouterr().err.splitlines()]
    # The last line is not said twice when the work ends.
    assert [(line[0], line[2]) for line in said] == [("count: 3 rows", "three"), ("count: 5 rows", "three")]
