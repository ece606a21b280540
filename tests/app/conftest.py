"""Runs made of thin air, and a way to open a page of the app on them without a browser."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # `app` is a folder beside `saelab`, not an installed package

from tests.app.synthetic import Shape, write_run  # noqa: E402
from tests.app.thinking import readable, write_thinking_run  # noqa: E402


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: `small` complete, `bare` without reports and index, `unfinished` without dictionary."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "small", Shape())
    write_run(folder / "bare", Shape(), evaluated=False, indexed=False)
    unfinished = write_run(folder / "unfinished", Shape(), evaluated=False, indexed=False)
    shutil.rmtree(unfinished.dictionary)
    return folder


@pytest.fixture
def open_page(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """`open_page(run="small", latent=3)` opens the address with these parameters, on `runs` or on `folder`."""

    # Streamlit leaves the page as the main module, which processes that later tests start would import.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def open_(folder: Path = runs, **query: object) -> AppTest:
        monkeypatch.setattr(sys, "argv", ["main.py", str(folder)])
        page = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
        for name, value in query.items():
            page.query_params[name] = str(value)
        return page.run()

    return open_


@pytest.fixture(scope="session")
def minds(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A folder of runs whose model is real: `mind` with an index, `bare` without, `heads` on queries."""
    folder = tmp_path_factory.mktemp("minds")
    model = readable(tiny_model, folder / ".model")
    write_thinking_run(folder / "mind", model)
    shutil.copytree(folder / "mind", folder / "bare", ignore=shutil.ignore_patterns("features"))
    write_thinking_run(folder / "heads", model, "blocks.1.attn.q", indexed=False)
    return folder
