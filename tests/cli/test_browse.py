"""`saelab browse`: the command that is run, what is refused, and a server that comes up and goes away."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from saelab.cli import browse
from saelab.errors import UserError


def test_the_server_listens_here_only_and_tells_nobody(tmp_path: Path) -> None:
    command, port = browse.server_command([tmp_path])
    options = dict(zip(command[2::2], command[3::2], strict=False))
    assert Path(command[1]).name == "serve.py"
    assert Path(command[1]).is_file()
    assert options["--server.address"] == "127.0.0.1"
    assert options["--server.port"] == str(port)
    assert options["--browser.gatherUsageStats"] == "false"
    assert command[command.index("--") + 1 :] == [str(tmp_path)]


def test_without_folders_the_usual_places_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    command, _ = browse.server_command([])
    assert str(tmp_path / "runs") in command


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a folder"):
        browse.server_command([tmp_path / "nowhere"])


def test_a_taken_port_is_refused_and_a_free_one_is_found(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((browse.ADDRESS, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken"):
            browse.server_command([tmp_path], port)
    assert browse.server_command([tmp_path], port)[1] == port
    with pytest.raises(UserError, match="70000 is not a port"):
        browse.server_command([tmp_path], 70000)


def test_a_server_that_dies_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "server_command", lambda *_: ([sys.executable, "-c", "raise SystemExit(3)"], 1))
    with pytest.raises(UserError, match="stopped while starting, with exit code 3"), browse.serve([tmp_path]):
        pass


@pytest.mark.slow
def test_the_app_comes_up_and_sigterm_takes_it_down(tmp_path: Path) -> None:
    start = (
        "import sys, pathlib; from saelab.cli import browse; browse.open_app([pathlib.Path(sys.argv[1])], None, False)"
    )
    command = [sys.executable, "-c", start, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4]
        with urllib.request.urlopen(f"{url}/_stcore/health") as answer:
            assert answer.status == 200
        process.terminate()
        assert process.wait(timeout=20) == 128 + 15
    with socket.socket() as probe:
        assert probe.connect_ex((browse.ADDRESS, int(url.rsplit(":", 1)[1]))) != 0, f"{url} was left behind"
