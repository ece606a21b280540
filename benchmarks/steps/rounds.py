"""One size measured: workers that take turns in rounds, so that a busy machine slows all of them alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks.steps.cases import OURS, PEERS, floors
from benchmarks.steps.size import Size, write_activations
from saelab.progress import track

ROOT = Path(__file__).resolve().parents[2]
TURN_MS = 1000.0  # a turn is as many steps as fit in this, at least one …
MOST_STEPS = 5  # … and at most these
SLOW_MS = 4000.0  # a case whose steps take longer has a turn every other round
PAUSE_S = 0.02  # after a turn, until OpenMP's threads no longer wait for work by spinning
SHOWN_OF_A_FAILURE = 3000  # characters

# What our buffers and mallopt do for us, done for a peer without touching its code: blocks of any size come from the
# heap and stay there when they are freed. Stronger than `keep_freed_memory`, since peers keep no buffers of their own.
FREED_STAYS = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_ARENA_MAX": "1",
}  # fmt: skip


class WorkerFailedError(RuntimeError):
    """A worker ended before it answered."""


class Worker:
    """A process that trains some cases, one at a time and only when told to."""

    def __init__(self, cases: list[str], size: Size, data: Path, device: str, profile: bool = False) -> None:
        self.cases, peer = cases, PEERS.get(cases[0])
        environment = {**os.environ, **(FREED_STAYS if peer and peer.same_settings else {})}
        if device == "cpu":
            environment["SPARSIFY_DISABLE_TRITON"] = "1"  # its kernels run on a GPU alone
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.steps.worker"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
        )  # fmt: skip
        self._send({"cases": cases, "size": str(size), "data": str(data), "device": device, "profile": profile})
        self.usage = psutil.Process(self._process.pid)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        """The end of its input is the end of a worker that waits; one in the middle of a step is killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def turn(self, case: str, steps: int, unmeasured: int = 0) -> list[dict[str, float]]:
        """Clocks of each step: ms, cpu_ms, faults (pages mapped anew)."""
        self._send({"case": case, "steps": steps, "unmeasured": unmeasured})
        return self.receive()["steps"]

    def ask(self, question: str) -> Any:
        self._send({"question": question})
        return self.receive()["answer"]

    def receive(self) -> dict[str, Any]:
        """Its next answer.

        Raises:
            WorkerFailedError: it ended instead; with the end of what it said.
        """
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._said.seek(0)
        said = self._said.read()[-SHOWN_OF_A_FAILURE:]
        raise WorkerFailedError(f"{', '.join(self.cases)}: exit code {self._process.returncode}\n{said}")

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            print(json.dumps(command), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self.receive()  # raises


def measure(size: Size, cases: list[str], device: str, repeats: int, profile: bool) -> dict[str, Any]:
    """Every case of one size, interleaved: a round gives each case a turn, every other round in opposite order."""
    ours = [*floors(device), *(case for case in cases if case in OURS)]
    alone = [[case] for case in cases if case in PEERS]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        write_activations(data := Path(folder) / "activations.safetensors", size)
        workers = [stack.enter_context(Worker(group, size, data, device, profile)) for group in (ours, *alone)]
        owner = {case: worker for worker in workers for case in worker.cases}
        threads = [worker.receive()["threads"] for worker in workers]
        steps = {case: [] for case in owner}
        with track(len(owner) * (repeats + 1), f"({size})", unit="turns") as bar:
            for case, worker in owner.items():
                first = worker.turn(case, 1)
                steps[case] = [first]  # warms up, says how many steps a turn can have, and is not counted
                bar.advance(1, case)
            others = OtherWork(worker.usage for worker in workers)
            for number in range(repeats):
                for case in list(owner)[:: -1 if number % 2 else 1]:
                    length = steps_of_a_turn(steps[case], number)
                    taken = owner[case].turn(case, length, unmeasured=int(device != "cpu")) if length else []
                    steps[case].append(taken)
                    bar.advance(1, f"{case} {taken[-1]['ms']:.0f} ms" if taken else case)
                    time.sleep(PAUSE_S)
            load = others.share()
        rows = {case: summary(size, rounds[1:]) for case, rounds in steps.items()}
        for case, found in workers[0].ask("findings").items():
            rows[case] |= found
        for worker in workers[1:]:
            rows[worker.cases[0]]["peak_mb"] = worker.ask("memory")
    return {"threads": threads[0], "rounds": repeats, "others_share": load, "cases": rows}


def peaks(size: Size, cases: Iterable[str], device: str) -> dict[str, float]:
    """MB above the imports that two steps of each case need in a process of its own: weights, moments and data too."""
    found = {}
    cases = list(cases)
    with tempfile.TemporaryDirectory() as folder, track(len(cases), f"({size}) memory", unit="cases") as bar:
        write_activations(data := Path(folder) / "activations.safetensors", size)
        for case in cases:
            with Worker([case], size, data, device) as worker:
                worker.receive()
                worker.turn(case, 2)
                found[case] = worker.ask("memory")
            bar.advance(1, f"{case} {found[case]:.0f} MB")
    return found


def steps_of_a_turn(seen: list[list[dict[str, float]]], number: int) -> int:
    """How many steps like the fastest seen so far a turn of round `number` has: none in every other if it is slow."""
    fastest = min(step["ms"] for steps in seen for step in steps)
    if fastest > SLOW_MS and number % 2:
        return 0
    return max(1, min(MOST_STEPS, int(TURN_MS / fastest)))


def summary(size: Size, rounds: list[list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over all steps, the middle half, and each round's median (None without a turn), for ratios."""
    ms = [step["ms"] for steps in rounds for step in steps]
    low, median, high = statistics.quantiles(ms, n=4, method="inclusive") if len(ms) > 1 else ms * 3
    return {
        "ms": median,
        "fastest_ms": min(ms),
        "middle_half_ms": [low, high],
        "rounds_ms": [statistics.median(step["ms"] for step in steps) if steps else None for steps in rounds],
        "cpu_ms": statistics.median(step["cpu_ms"] for steps in rounds for step in steps),
        "faults": statistics.median(step["faults"] for steps in rounds for step in steps),
        "steps": len(ms),
        "tokens_per_s": 1000 * size.batch / median,
    }


class OtherWork:
    """How much of the processors went to anything else than `processes` since this was made."""

    def __init__(self, processes: Iterable[psutil.Process]) -> None:
        self.processes = [psutil.Process(), *processes]
        self.begun = self._now()

    def share(self) -> float:
        wall, busy, own = (now - then for now, then in zip(self._now(), self.begun, strict=True))
        return max(0.0, busy - own) / (wall * (psutil.cpu_count() or 1))

    def _now(self) -> tuple[float, float, float]:
        machine = psutil.cpu_times()
        times = [process.cpu_times() for process in self.processes]
        return time.monotonic(), machine.user + machine.nice + machine.system, sum(t.user + t.system for t in times)
