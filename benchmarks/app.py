"""How quick the app feels, in a real Chromium: first paint, next latent, other interactions.

    python benchmarks/app.py artifacts/runs/demo            # a real run
    python benchmarks/app.py --synthetic 131072             # a generated one of any size

First paint: from navigation until the page's main content stands (the quality tiles and starting points; a latent's
examples), each time as a new visitor with an empty browser cache. Interactions: from the key or click until the new
content stands and the server has finished the page. The clock is the browser's own (`performance.now`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from saelab.cli.browse import serve  # noqa: E402

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
)  # fmt: skip
CHANGED = """([selector, before]) => {
  const found = document.querySelector(selector);
  const idle = document.querySelector('[data-test-script-state="notRunning"]');
  return found && found.innerText !== before && idle ? performance.now() : false;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run directory with a feature index")
    parser.add_argument("--synthetic", type=int, metavar="D_SAE", help="generate a run with this many latents instead")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the times (ms) to this file")
    arguments = parser.parse_args()
    if (arguments.run is None) == (arguments.synthetic is None):
        parser.error("give a run directory or --synthetic, one of them")
    with _run(arguments.run, arguments.synthetic) as run, serve([run]) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=list(FLAGS))
        times = measure(browser, url, arguments.repeats)
        browser.close()
    load = os.getloadavg()[0]
    print(f"\n{'':28}{'p50 ms':>10}{'p95 ms':>10}{'n':>6}    ({os.cpu_count()} cores, load {load:.1f})")
    for name, values in times.items():
        print(f"{name:28}{statistics.median(values):10.0f}{p95(values):10.0f}{len(values):6}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": load, "ms": times}, indent=1))


def measure(browser: Browser, url: str, repeats: int) -> dict[str, list[float]]:
    """Milliseconds by what was done."""
    times = {
        "first paint, dictionary": [first_paint(browser, url, ".sl-tiles") for _ in range(repeats)],
        "first paint, latent": [first_paint(browser, f"{url}/latent?latent=3", ".sl-row p") for _ in range(repeats)],
    }
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(f"{url}/latent?latent=10")
    page.get_by_role("button", name="Next").wait_for()  # it carries the key
    times["next latent"] = [interaction(page, lambda: page.keyboard.press("ArrowRight"), "h1") for _ in range(repeats)]
    tabs = ("25–50%", "Strongest")
    times["tab of examples"] = [
        interaction(page, page.get_by_text(tabs[n % 2], exact=True).click, ".sl-examples") for n in range(repeats)
    ]
    page.goto(url)
    page.locator(".js-plotly-plot").first.wait_for()
    headings = ("Largest", "Density")
    times["sort the table"] = [
        interaction(page, page.locator("th a", has_text=headings[n % 2]).click, ".sl-table") for n in range(repeats)
    ]
    context.close()
    return times


def first_paint(browser: Browser, url: str, selector: str) -> float:
    """A new visitor with an empty cache, until `selector` is there."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url, wait_until="commit")
    seen = page.wait_for_function(
        "selector => document.querySelector(selector) ? performance.now() : false", arg=selector, polling="raf"
    )
    milliseconds = float(seen.json_value())
    context.close()
    return milliseconds


def interaction(page: Page, act: Callable[[], None], selector: str) -> float:
    """From the act until the text of `selector` has changed and the server has finished the page."""
    page.evaluate(
        """() => {
          window.started = 0;
          const note = () => { window.started ||= performance.now(); };
          for (const kind of ['keydown', 'click']) addEventListener(kind, note, { capture: true, once: true });
        }"""
    )
    before = page.locator(selector).first.inner_text()
    act()
    ended = float(page.wait_for_function(CHANGED, arg=[selector, before], polling="raf").json_value())
    return ended - float(page.evaluate("() => window.started"))


def p95(values: list[float]) -> float:
    """The 95th percentile; the largest of fewer than 20 values."""
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


@contextmanager
def _run(given: Path | None, d_sae: int | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    from tests.app.synthetic import Shape, write_run

    with tempfile.TemporaryDirectory() as folder:
        shape = Shape(d_sae=d_sae or 0, n_rows=4000, context=64, k=16, d_vocab=2000)
        yield write_run(Path(folder) / "synthetic", shape).root


def _chromium() -> str:
    path = os.environ.get("SAELAB_CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise SystemExit("no Chromium here: `apt-get install chromium`, or name one in SAELAB_CHROMIUM")
    return path


if __name__ == "__main__":
    main()
