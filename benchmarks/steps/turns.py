"""How a worker takes turns: whoever trains in it asks for batches, and each waits until the coordinator allows it."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Channel:
    """JSON lines to and from the coordinator; whatever else the process prints goes to stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def receive(self) -> dict[str, Any]:
        """The next command. The coordinator's end closed is the end of this process."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        return json.loads(line)

    def answer(self, **what: Any) -> None:
        print(json.dumps(what), file=self._out, flush=True)


class Turns(Iterator[Float[Tensor, "B d"]]):
    """Batches in a circle. From handing one out until the next is asked for is one step, whoever's loop that is.

    Args:
        before: is called before every batch, outside the step that is timed.
        questions: what else the coordinator may ask, by name.

    Attributes:
        case: whose turn it is.
        number: of the batch that was handed out last.
    """

    def __init__(
        self,
        channel: Channel,
        batches: Float[Tensor, "n B d"],
        before: Callable[[], None],
        questions: dict[str, Callable[[], Any]],
    ) -> None:
        self.channel, self.batches, self.before, self.questions = channel, batches, before, questions
        self.case, self.number = "", -1
        self._left = self._unmeasured = 0
        self._steps: list[dict[str, float]] = []
        self._begun: dict[str, float] | None = None

    def __next__(self) -> Float[Tensor, "B d"]:
        if self._begun is not None:
            now = self._clocks()
            self._steps.append({name: now[name] - begun for name, begun in self._begun.items()})
            self._begun = None
            if self._left == 0:
                self.channel.answer(steps=self._steps[self._unmeasured :])
        while self._left == 0:
            self._obey(self.channel.receive())
        self._left -= 1
        self.number = (self.number + 1) % len(self.batches)
        self.before()
        self._begun = self._clocks()
        return self.batches[self.number]

    def _obey(self, command: dict[str, Any]) -> None:
        if question := command.get("question"):
            self.channel.answer(answer=self.questions[question]())
            return
        self.case, self._unmeasured, self._steps = command["case"], command["unmeasured"], []
        self._left = command["steps"] + self._unmeasured

    def _clocks(self) -> dict[str, float]:
        if self.batches.is_cuda:
            torch.cuda.synchronize()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return {"ms": 1000 * time.perf_counter(), "cpu_ms": 1000 * time.process_time(), "faults": faults}


def peak_mb(device: str) -> float:
    """The most memory that this process ever held; on a GPU, the most of the GPU's."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # where getrusage goes on counting from what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts in bytes
