"""`saelab browse`: start the app on this machine, wait until it answers, open it, stop it cleanly."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from saelab.cli.places import runs_folder
from saelab.disk import bundled
from saelab.errors import UserError

ADDRESS = "127.0.0.1"  # never the network: the app shows whatever lies in the folders it is given
FIRST_PORT = 8501
PORTS_TRIED = 50
START_SECONDS = 60.0


app = App(
    name="browse",
    help_epilogue="""Examples:
  saelab browse                        every run in the usual folders
  saelab browse runs/mine runs/other   these two
  saelab browse runs --port 9000 --no-open""",
)


@app.default
def browse(*runs: Path, port: int | None = None, no_open: Annotated[bool, Parameter(name="--no-open")] = False) -> None:
    """Open the feature browser on finished and running dictionaries, until Ctrl-C.

    Parameters
    ----------
    runs
        Run directories, or folders that contain some; the usual places when left out.
    port
        Listen on exactly this port; left out, the first free one from 8501 on.
    no_open
        Print the address without opening a browser.
    """
    open_app(runs, port, not no_open)


def open_app(runs: Sequence[Path], port: int | None = None, open_browser: bool = True) -> None:
    """Serve the app on `runs` until Ctrl-C.

    Raises:
        UserError: a folder does not exist, the port is taken, or the server does not come up.
    """
    with serve(runs, port) as (url, server):
        print(f"saelab is open at {url}   (Ctrl-C stops it)", flush=True)
        if open_browser:
            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):
            server.wait()


@contextlib.contextmanager
def serve(runs: Sequence[Path], port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The running server as a context: yields (URL, process) once it answers, ends the process on the way out."""
    command, port = server_command(runs, port)
    with _terminate_is_exit():
        # A session of its own: Ctrl-C reaches us alone, and we end the server in order. Its errors go to our stderr.
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            url = f"http://{ADDRESS}:{port}"
            _wait_until_healthy(url, server)
            yield url, server
        finally:
            server.terminate()
            try:
                server.wait(timeout=5)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def server_command(runs: Sequence[Path], port: int | None = None) -> tuple[list[str], int]:
    """The command line that serves `runs`, and the port it will listen on."""
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run} is not a folder; give a run directory or a folder that contains runs")
    folders = list(runs) or default_folders()
    chosen = _free_port() if port is None else _require_free(port)
    options = {
        "server.address": ADDRESS,
        "server.port": str(chosen),
        "server.headless": "true",  # the browser is opened here, when the page is ready
        "browser.gatherUsageStats": "false",
        "logger.level": "error",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [
        sys.executable,
        str(bundled("app") / "serve.py"),
        *flags,
        "--",
        *(str(f.resolve()) for f in folders),
    ], chosen


def default_folders() -> list[Path]:
    """Where runs usually lie: in `./runs`, where the commands put them unasked, and what travels with saelab."""
    usual = [Path("runs"), runs_folder(), bundled("artifacts/runs")]
    return list({folder.resolve(): folder for folder in usual if folder.is_dir()}.values())


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if _is_free(port):
            return port
    raise UserError(f"no free port between {FIRST_PORT} and {FIRST_PORT + PORTS_TRIED - 1}; name one with --port")


def _require_free(port: int) -> int:
    if not 1 <= port <= 65535:
        raise UserError(f"--port {port} is not a port; give a number from 1 to 65535")
    if not _is_free(port):
        raise UserError(f"port {port} is taken; give another with --port, or leave it out to get a free one")
    return port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
    return True


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise UserError(
                f"the app stopped while starting, with exit code {server.returncode}; its message stands above"
            )
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.05)
    raise UserError(
        f"the app did not answer at {url} within {START_SECONDS:.0f} s; is this machine very busy? Try again"
    )


@contextlib.contextmanager
def _terminate_is_exit() -> Iterator[None]:
    """Turn SIGTERM into an ordinary exit, so that the server is not left behind."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    try:
        previous = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread, where signals can't be set; the caller ends the context itself
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
