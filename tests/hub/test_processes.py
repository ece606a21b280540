"""The commands as processes of their own, told by HF_ENDPOINT alone where the Hub is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.hub.conftest import weights_name
from tests.hub.server.local_hub import TOKEN, LocalHub


def test_publish_and_pull(evaluated: Path, tmp_path: Path) -> None:
    hub = LocalHub()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip

    def command(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "saelab", *map(str, words)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout

    with hub.running():
        assert "published: " in command("publish", evaluated, "alice/saes")
        assert "checked" in command("pull", "alice/saes", "--out", tmp_path / "pulled")
    assert weights_name(evaluated) in hub.repositories["alice/saes"].names()
    ours, theirs = (run / "dictionary/dictionary.safetensors" for run in (evaluated, tmp_path / "pulled"))
    assert ours.read_bytes() == theirs.read_bytes()
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()
