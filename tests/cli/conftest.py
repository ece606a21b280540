"""A run small enough to train in seconds."""

from pathlib import Path

import pytest

from saelab import cli


@pytest.fixture(scope="session")
def small(tiny_model: Path) -> list[object]:
    """Settings of a training that takes seconds."""
    return [
        "--model", tiny_model, "--site", "blocks.0.resid_post", "--policy.context", 32, "--sae.d_sae", 32, "--sae.k", 4,
        "--tokens", 1024, "--batch", 128, "--buffer", 512, "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def finished(small: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change it copy it first."""
    directory = tmp_path_factory.mktemp("runs") / "small"
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in ["train", *small, "--out", directory]])
    assert stop.value.code == 0
    return directory
