"""The app on a real server, in a real Chromium: Debian's, driven by Playwright, with nothing fetched from outside."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402

from saelab.cli.browse import serve  # noqa: E402
from tests.app.synthetic import Shape, write_run  # noqa: E402

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
)  # fmt: skip
PATIENCE_MS = 60_000  # on a busy machine; every wait ends as soon as what it waits for is there


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A headless Chromium: `$SAELAB_CHROMIUM`, or the one on the path."""
    path = os.environ.get("SAELAB_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium here: `apt-get install chromium`, or name one in SAELAB_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app, served on one finished run called `small`."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "small", Shape())
    with serve([folder]) as (url, _):
        yield url


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A fresh visitor. A page that raises in JavaScript or asks for anything outside this machine fails the test."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    strangers: list[str] = []
    failures: list[str] = []
    page.on("request", lambda request: strangers.append(request.url) if "//127.0.0.1:" not in request.url else None)
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert [url for url in strangers if not url.startswith(("data:", "blob:"))] == []
    assert failures == []
