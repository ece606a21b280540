"""One process of a job: how it is named, and how others on the same machine see that it has ended."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import NamedTuple


class Member(NamedTuple):
    """A rank's process."""

    rank: int
    host: str
    pid: int
    begun: str
    """Start time of the process: a later process with the same number is another one."""
    space: str
    """Boot and process namespace in which `pid` means something; "" where the system does not tell."""

    @classmethod
    def here(cls, rank: int) -> Member:
        """This process."""
        return cls(rank, socket.gethostname(), os.getpid(), _begun(os.getpid()) or "", _space())

    @classmethod
    def from_json(cls, text: str) -> Member:
        """What `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """As one line of text."""
        return json.dumps(self._asdict())

    def ended(self) -> bool:
        """True when the process is known to have ended; one on another machine can't be looked at."""
        return self.space != "" and self.space == _space() and _begun(self.pid) != self.begun

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"


def _begun(pid: int) -> str | None:
    """Start time of a process in the kernel's ticks; None when it has ended, waited for or not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name before may hold spaces
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
