"""Processes that may be killed.

`Group` forks ranks from a clean process that has imported torch once, before any thread was there: in a second or two.
`Torchrun` starts them as people do: from nothing, in five to ten.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import saelab
from saelab.errors import UserError
from saelab.ranks import Ranks, joined

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["saelab.activations.harvest", "torch.distributed", "transformers.models.gpt2.modeling_gpt2"]
)
Process = ForkServerProcess
PATIENCE_S = 300.0  # a busy machine is slow, not wrong


class Group:
    """Ranks that run `work(ranks, *arguments)`, as torchrun would start them, but for torchrun.

    Args:
        newer: a rank that has another version of saelab.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        work: Callable[..., Any],
        *arguments: Any,
        silence_s: float = 60.0,
        newer: int | None = None,
    ) -> None:
        self.folder, self.size = folder, size
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes = [
            PROCESSES.Process(target=_rank, args=(folder, rank, size, port, silence_s, work, arguments, rank == newer))
            for rank in range(size)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> list[tuple[str, str]]:
        """How each rank ended: ("done", its value), (name of an error, its sentence), ("killed", ""), or with a code
        and its stderr."""
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
        if code == -signal.SIGKILL:
            return "killed", ""
        return f"exit code {code}", (self.folder / f"{rank}.err").read_text()


class Torchrun:
    """`torchrun -m saelab WORDS`, and its processes.

    Args:
        options: of torchrun, beside the number of processes.
        shell: run this line of sh in place of saelab, with `$0` for Python; `$RANK` is set.
    """

    def __init__(
        self, folder: Path, size: int, *words: object, options: Sequence[str] = (), shell: str | None = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._said = folder / f"said-{len(list(folder.iterdir()))}.txt"
        program = (
            ["-m", "saelab", *map(str, words)] if shell is None else ["--no-python", "sh", "-c", shell, sys.executable]
        )
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size), *options, *program],
                stdout=said, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def pid(self, rank: int) -> int | None:
        """Process of a rank; None while there is none."""
        own = self.process.pid
        for child in Path(f"/proc/{own}/task/{own}/children").read_text().split():
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            if f"RANK={rank}".encode() in environment:
                return int(child)
        return None

    @property
    def said(self) -> str:
        """Everything that was printed so far."""
        return self._said.read_text()

    def end(self) -> tuple[int, str]:
        """Exit code and everything that was printed."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"torchrun hangs:\n{self.said}") from None
        return code, self.said


def _rank(
    folder: Path,
    rank: int,
    size: int,
    port: int,
    silence_s: float,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    is_newer: bool,
) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    os.dup2(os.open(folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    if is_newer:
        saelab.__version__ = "99"
    try:
        with joined(silence_s) as ranks:
            end = "done", str(work(ranks, *arguments))
    except (UserError, ValueError, KeyboardInterrupt, SystemExit) as error:
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
