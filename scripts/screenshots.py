"""Pictures of every page, for docs/, from real runs:

    python scripts/screenshots.py artifacts/runs/demo                    # what one run shows
    python scripts/screenshots.py artifacts/runs/demo runs/grid runs/ioi-demo   # and several, and a judgement

Each page is opened in a headless Chromium and saved as docs/screenshots/NAME.png in 256 colours; some in dark too.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from saelab.cli.browse import serve

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
)  # fmt: skip
WIDTH, HEIGHT = 1440, 900
PATIENCE_MS = 120_000  # a model may have to be loaded
DARK = ("dictionary", "latent", "steer")  # also taken in dark


@dataclass(frozen=True)
class Shot:
    """A picture: its name, the address, what must be there first, and what is done before it is taken."""

    name: str
    address: str
    wait_for: str
    prepare: Callable[[Page], None] = lambda page: None


def at(heading: str) -> Callable[[Page], None]:
    """Scroll until this heading is at the top."""
    return lambda page: page.get_by_role("heading", name=heading).first.evaluate("e => e.scrollIntoView()")


def at_figure(number: int) -> Callable[[Page], None]:
    """Scroll until the figure of this number, from 0, is at the top."""
    return lambda page: page.locator(".stPlotlyChart").nth(number).evaluate("e => e.scrollIntoView()")


def write_texts(page: Page) -> None:
    """Let the Steer page write its texts, and look at them."""
    main = page.get_by_test_id("stMain")
    main.get_by_role("button", name="Write").click()
    stop = main.get_by_role("button", name="Stop")
    stop.wait_for(state="attached")
    stop.wait_for(state="detached")
    at("Texts")(page)


def shots(run: str, latent: int, steered: str, has_judgement: bool) -> list[Shot]:
    """What is pictured of a run; `latent` is a good one, `steered` are those that change what is written."""

    def address(page: str, **query: object) -> str:
        return f"{page}?{urlencode({'run': run, **query})}"

    pictures = [
        Shot("runs", "runs", ".sl-table"),
        Shot("dictionary", address(""), ".sl-table"),
        Shot("dictionary-spread", address(""), ".js-plotly-plot", at("How firing is spread")),
        Shot("dictionary-map", address("", colour="label"), "[data-drawn]", at("Map of decoder directions")),
        Shot("latent", address("latent", latent=latent), ".js-plotly-plot"),
        Shot("search", address("search", q="said"), ".sl-bars"),
        Shot(
            "search-example",
            address("search", by="example", on="The girl was happy.", off="The girl was sad."),
            ".sl-bar",
        ),
        Shot("prompt", address("prompt", text="Once upon a time there was a little girl named Lily."), ".sl-chances"),
        Shot(
            "steer",
            address("steer", latents=steered, strength="1, 2", prompt='The girl was happy. "I like it,"'),
            ".sl-curves",
        ),
        Shot(
            "steer-texts",
            address("steer", latents=steered, strength="1, 2", prompt='The girl was happy. "I like it,"'),
            ".sl-curves",
            write_texts,
        ),
        Shot("evaluations", "evaluations?suite=fidelity", ".sl-report"),
        Shot("evaluations-labels", "evaluations?suite=labels", ".js-plotly-plot", at_figure(0)),
    ]
    judgement = [
        Shot("evaluations-circuit", "evaluations?suite=ioi", ".js-plotly-plot", at("The circuit")),
        Shot("evaluations-ioi", "evaluations?suite=ioi&part=(B)NM+z", ".js-plotly-plot", at_figure(1)),
    ]
    return pictures + (judgement if has_judgement else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run with dictionary, reports and index of the present schema")
    parser.add_argument("more", type=Path, nargs="*", help="folders with more runs, or made by `saelab ioi`")
    parser.add_argument("--latent", type=int, help="which latent to show; the first starting point when left out")
    parser.add_argument(
        "--steer", metavar="LATENTS", help="which latents to steer, as in 12,40; that one when left out"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these pictures alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "screenshots")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = os.environ.get("SAELAB_CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise SystemExit("no Chromium here: `apt-get install chromium`, or name one in SAELAB_CHROMIUM")
    has_judgement = any((folder / "ioi.json").is_file() for folder in arguments.more)
    with serve([arguments.run, *arguments.more]) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        latent = arguments.latent if arguments.latent is not None else first_starting_point(browser, url)
        steered = arguments.steer or str(latent)
        for shot in shots(arguments.run.resolve().name, latent, steered, has_judgement):
            if arguments.only and shot.name not in arguments.only:
                continue
            take(browser, url, shot, False, arguments.out / f"{shot.name}.png")
            if shot.name in DARK:
                take(browser, url, shot, True, arguments.out / f"{shot.name}-dark.png")
        browser.close()


def first_starting_point(browser: Browser, url: str) -> int:
    """The first latent that the Dictionary page recommends."""
    page = browser.new_page()
    page.goto(url)
    card = page.locator("a.sl-card").first
    card.wait_for(timeout=PATIENCE_MS)
    number = int(re.findall(r"\d+", card.inner_text())[0])  # what it is called stands close behind
    page.close()
    return number


def take(browser: Browser, url: str, shot: Shot, is_dark: bool, path: Path) -> None:
    """Open the page as a new visitor and save what is seen."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if is_dark else "light"
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{url}/{shot.address}")
    try:
        page.locator(shot.wait_for).first.wait_for()
        _settle(page)
        shot.prepare(page)
        _settle(page)
    except Exception as problem:  # noqa: BLE001 (one picture that fails must not cost the others)
        print(f"{shot.name}: {str(problem).splitlines()[0]}", file=sys.stderr)
    page.screenshot(path=path)
    context.close()
    # A fifth of the size, and no difference to the eye: pages have few colours.
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} {path.stat().st_size // 1024} KB", flush=True)


def _settle(page: Page) -> None:
    page.locator('[data-test-script-state="notRunning"]').wait_for()
    page.wait_for_timeout(1500)  # charts ease into place


if __name__ == "__main__":
    main()
