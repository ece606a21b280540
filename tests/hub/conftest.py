"""A Hub on localhost for huggingface_hub in this process, a cache and a home of its own, and runs to publish."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session, disable_progress_bars, enable_progress_bars

from saelab import cli
from saelab.disk import RunPaths
from tests.hub.server.local_hub import TOKEN, LocalHub

CONFIG = ["--policy.context", 32, "--sae.d_sae", 24, "--sae.k", 3, "--tokens", 1024, "--batch", 128, "--buffer", 512]
EVALUATION = ["--tokens", 512, "--mean_tokens", 128, "--resamples", 20]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """huggingface_hub 2.4 uploads files in a way that its HTTP library calls deprecated."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw:DeprecationWarning"))


def run_cli(*words: object) -> None:
    """A command that must end well."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code == 0


@pytest.fixture(scope="session")
def evaluated(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and evaluated run; tests that change it copy it first."""
    run = tmp_path_factory.mktemp("runs") / "small"
    site = ["--model", tiny_model, "--site", "blocks.0.resid_post", "--device", "cpu"]
    run_cli("train", *site, *CONFIG, "--out", run)
    run_cli("evaluate", run, *EVALUATION, "--device", "cpu")
    return run


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(evaluated, tmp_path / "mine" / "small"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """The local Hub; huggingface_hub talks to it with Alice's token, and waits no time between retries."""
    local = LocalHub()
    address = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    for name, value in {
        "ENDPOINT": local.endpoint, "HUGGINGFACE_CO_URL_TEMPLATE": local.endpoint + address,
        "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True, "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DOWNLOAD_TIMEOUT": 5, "HF_HUB_ETAG_TIMEOUT": 5,
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("time.sleep", lambda seconds: local.waits.append(seconds))
    disable_progress_bars()
    close_session()
    with local.running():
        yield local
        close_session()
    enable_progress_bars()


@pytest.fixture(scope="session")
def kept() -> dict[str, object]:
    """What a Hub held after the first publication."""
    return {}


@pytest.fixture
def published(hub: LocalHub, evaluated: Path, kept: dict[str, object]) -> LocalHub:
    """The Hub with the run in alice/saes; really sent once, and remembered."""
    if not kept:
        run_cli("publish", evaluated, "alice/saes", "--license", "mit")
        kept.update(copy.deepcopy({"repositories": hub.repositories, "objects": hub.objects}))
    for name, state in copy.deepcopy(kept).items():
        setattr(hub, name, state)
    return hub


def weights_name(run: Path) -> str:
    """Name of the run's weights in its repository."""
    assert RunPaths(run).dictionary.is_dir()
    return f"blocks.0.resid_post/{run.name}/dictionary.safetensors"
