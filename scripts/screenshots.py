"""Pictures of every page, for docs/, from a real run: `python scripts/screenshots.py artifacts/runs/demo`.

Each page is opened in a headless Chromium and saved as docs/screenshots/NAME.png; two also in dark.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from saelab.cli.browse import serve

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
)  # fmt: skip
WIDTH, HEIGHT, TALLEST = 1440, 900, 3200
IDLE = '[data-test-script-state="notRunning"]'


@dataclass(frozen=True)
class Shot:
    """A picture: its name, the address, what must be there first, and whether the whole page is taken."""

    name: str
    address: str
    wait_for: str
    whole: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--latent", type=int, help="which latent to show; the first starting point when left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "screenshots")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = os.environ.get("SAELAB_CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise SystemExit("no Chromium here: `apt-get install chromium`, or name one in SAELAB_CHROMIUM")
    with serve([arguments.run]) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        latent = first_starting_point(browser, url) if arguments.latent is None else f"latent?latent={arguments.latent}"
        shots = (
            Shot("dictionary", "", ".js-plotly-plot"),
            Shot("dictionary-whole", "", ".js-plotly-plot", whole=True),
            Shot("latent", latent, ".js-plotly-plot"),
            Shot("latent-sampled", f"{latent}&tab=lower", ".js-plotly-plot"),
            Shot("search", "search?q=said", ".sl-bars"),
            Shot("runs", "runs", ".sl-table"),
        )
        for shot in shots:
            take(browser, url, shot, "light", arguments.out / f"{shot.name}.png")
            if shot.name in ("dictionary", "latent"):
                take(browser, url, shot, "dark", arguments.out / f"{shot.name}-dark.png")
        browser.close()


def first_starting_point(browser: Browser, url: str) -> str:
    """Address of the first latent that the overview recommends."""
    page = browser.new_page()
    page.goto(url)
    card = page.locator("a.sl-card").first
    card.wait_for()
    address = card.get_attribute("href") or "latent?latent=0"
    page.close()
    return address


def take(browser: Browser, url: str, shot: Shot, scheme: str, path: Path) -> None:
    """Open the page as a new visitor and save what is seen."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    page.goto(f"{url}/{shot.address}")
    page.locator(shot.wait_for).first.wait_for(timeout=60_000)
    page.locator(IDLE).wait_for(timeout=60_000)
    if shot.whole:  # the page scrolls inside the app, so the window must grow to show it all
        height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": WIDTH, "height": min(height, TALLEST)})
    page.wait_for_timeout(1500)  # charts ease into place
    page.screenshot(path=path)
    context.close()
    print(path)


if __name__ == "__main__":
    main()
