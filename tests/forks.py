"""Processes that may be killed: forked from a clean one that has imported torch once, before any thread was there."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from saelab.errors import UserError
from saelab.ranks import Ranks, joined

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["saelab.activations.harvest", "torch.distributed", "transformers.models.gpt2.modeling_gpt2"]
)
Process = ForkServerProcess
PATIENCE_S = 120.0


class Group:
    """Ranks that run `work(ranks, *arguments)`, as torchrun would start them, but for torchrun."""

    def __init__(
        self, folder: Path, size: int, work: Callable[..., Any], *arguments: Any, silence_s: float = 60.0
    ) -> None:
        self.folder, self.size = folder, size
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes = [
            PROCESSES.Process(target=_rank, args=(folder, rank, size, port, silence_s, work, arguments))
            for rank in range(size)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> list[tuple[str, str]]:
        """How each rank ended: ("done", its value), (name of an error, its sentence), or ("killed", "")."""
        for process in self.processes:
            process.join(PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()
                raise AssertionError("a rank hangs")
        return [self._end(rank) for rank in range(self.size)]

    def _end(self, rank: int) -> tuple[str, str]:
        path = self.folder / f"{rank}.json"
        code = self.processes[rank].exitcode
        if code == 0:
            return tuple(json.loads(path.read_text()))
        return ("killed", "") if code == -signal.SIGKILL else (f"exit code {code}", "")


def _rank(
    folder: Path,
    rank: int,
    size: int,
    port: int,
    silence_s: float,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    try:
        with joined(silence_s) as ranks:
            end = "done", str(work(ranks, *arguments))
    except (UserError, ValueError) as error:
        end = type(error).__name__, str(error)
    (folder / f"{rank}.json").write_text(json.dumps(end))


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def work_on(ranks: Ranks) -> None:
    """Work for ever, as a stage does."""
    while True:
        ranks.check()
        time.sleep(0.01)
