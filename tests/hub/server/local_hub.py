"""A Hub on localhost: the endpoints that huggingface_hub uses for models, over real HTTP, and faults on demand.

Large files go through LFS (batch, PUT, verify) and come back through a redirect to another host name, as the real Hub's
do. There is no xet here.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

from tests.hub.server.handler import Handler
from tests.hub.server.repository import Repository

USER = "alice"
TOKEN = "hf_" + "testtokentesttokentesttokentest00"


@dataclass
class Fault:
    """Something that goes wrong with requests whose `METHOD path` matches, the next `times` times."""

    pattern: str
    times: int = 10**6
    status: int | None = None
    """Answer with this status."""
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    cut_upload: bool = False
    """Read a part of the request, then hang up."""
    truncate: bool = False
    """Send the first half of the answer, then hang up."""
    flip: bool = False
    """Send another first byte."""
    delay: float = 0.0
    """Seconds of silence before the answer."""


class Server(ThreadingHTTPServer):
    """Clients that hang up are part of the tests."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class LocalHub:
    """The server and what it holds; `requests` counts `METHOD path` of everything that was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: Counter[str] = Counter()
        self.leaked: list[str] = []
        """Requests to the storage host that carried a token."""
        self.large_files = True
        """Whether LFS is spoken."""
        self.waits: list[float] = []
        """What the client would have waited."""
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": self}))
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.storage = f"http://localhost:{self.port}"

    @contextmanager
    def running(self) -> Iterator[LocalHub]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()

    def fail(self, pattern: str, **how: object) -> Fault:
        """Let requests that match go wrong: `hub.fail("PUT /storage", cut_upload=True, times=1)`."""
        fault = Fault(pattern, **how)  # type: ignore[arg-type]
        self.faults.append(fault)
        return fault

    def fault_of(self, request: str) -> Fault | None:
        """The fault that meets this request, if any; it is used up."""
        with self.lock:
            self.requests[request] += 1
            for fault in self.faults:
                if fault.times > 0 and re.match(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def asked(self, pattern: str) -> int:
        """How many requests matched."""
        return sum(count for request, count in self.requests.items() if re.match(pattern, request))
