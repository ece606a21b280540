"""How quick the app feels, in a real Chromium: what a visitor waits for on every page, at every step.

    python benchmarks/app.py                                # generated: 512 and 131,072 latents, 50 runs each
    python benchmarks/app.py --sizes 24576                  # another size
    python benchmarks/app.py --run artifacts/runs/demo      # a real run, alone
    python benchmarks/app.py --pages Dictionary Search      # only pages whose names start so

Generated dictionaries are random ones of the bundled model's width, so that the Prompt and Steer pages compute what
they would for a real one. *Open*: from navigation until the page's main content stands, with a warm browser cache but
for the new visitor. All else is an interaction: from the key or click until the content has changed and the server has
finished the page. The clock is the browser's own (`performance.now`). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from saelab.cli.browse import serve  # noqa: E402
from saelab.disk import RunPaths  # noqa: E402
from tests.app.synthetic import Shape, write_run  # noqa: E402
from tests.app.synthetic_dictionary import write_dictionary  # noqa: E402
from tests.app.synthetic_ioi import ioi_report  # noqa: E402

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
)  # fmt: skip
MAIN = "[data-testid=stMain]"
SEEN = "element => element.innerText + (element.dataset.drawn ?? '')"  # of the map: what its canvas shows
CHANGED = f"""([selector, before]) => {{
  const found = document.querySelector(selector);
  const idle = document.querySelector('[data-test-script-state="notRunning"]');
  return found && ({SEEN})(found) !== before && idle ? performance.now() : false;
}}"""
SITE, K = "blocks.2.resid_post", 16
OTHERS = 49  # small runs beside the one that is measured
TEXTS = ("The girl found a red ball in the park .", "The dog ran to the tree and the boy said hello .")
RUN = "a"


@dataclass(frozen=True)
class Step:
    """An interaction: its name, what is done the n-th time, and whose text then changes.

    Of typing, it must be a result: a field that is being typed into shows a hint at once.
    """

    name: str
    act: Callable[[Page, int], None]
    selector: str = MAIN


@dataclass(frozen=True)
class Opened:
    """A page of the app: its address, the selector that says it stands, and what is done on it."""

    name: str
    address: str
    ready: str
    steps: tuple[Step, ...] = ()


def choose(*names: str) -> Callable[[Page, int], None]:
    """Choose these in turn, of options side by side."""
    return lambda page, n: page.get_by_test_id("stButtonGroup").get_by_text(names[n % len(names)], exact=True).click()


def sort(*names: str) -> Callable[[Page, int], None]:
    """Sort by these headings in turn."""
    return lambda page, n: page.locator("th a", has_text=names[n % len(names)]).first.click()


def fill(label: str, *texts: str, key: str = "Enter") -> Callable[[Page, int], None]:
    """Type these texts into a field in turn."""

    def act(page: Page, n: int) -> None:
        field = page.get_by_label(label, exact=True)
        field.fill(texts[n % len(texts)])
        field.press(key)

    return act


def token(page: Page, n: int) -> None:
    page.locator("a.sl-pick").nth(2 + n % 5).click()


PAGES = (
    Opened("Runs", "runs", ".sl-table", (
        Step("sort the table", sort("FVU", "Run"), ".sl-table"),
        Step("filter", fill("Show only", "run-1", ""), ".sl-table"),
    )),
    Opened("Dictionary", f"?run={RUN}", ".sl-tiles", (
        Step("sort all latents", sort("Largest", "Density"), ".sl-table"),
        Step("filter all latents", fill("Fires on, promotes, label, or name", "a", ""), ".sl-table"),
        Step("colour the map", choose("Best label", "Density"), "[data-drawn]"),
    )),
    Opened("Latent", f"latent?run={RUN}&latent=3", ".sl-row p", (
        Step("next latent", lambda page, _: page.keyboard.press("ArrowRight"), "h1"),
        Step("other examples", choose("25–50%", "Strongest"), ".sl-examples"),
    )),
    Opened("Search", f"search?run={RUN}&q=said", ".sl-bars", (
        Step("another word", fill("A word, a piece of one, a label, or a name you gave", "dog", "said"), ".sl-bars"),
    )),
    Opened("Search by example", f"search?run={RUN}&by=example&on={TEXTS[0]}&off={TEXTS[1]}", ".sl-bar", (
        Step("how strength is taken", choose("Mean over tokens", "Largest activation")),
    )),
    Opened("Search by direction", f"search?run={RUN}&by=direction", ".sl-bar", ()),
    Opened("Prompt", f"prompt?run={RUN}&text={TEXTS[0]}", ".sl-strip", (
        Step("another token", token),
        Step("another text", fill("Text", *reversed(TEXTS), key="Control+Enter"), ".sl-strip"),
        Step("a text nobody read", fill("Text", *(f"{n} {TEXTS[n % 2]}" for n in range(99)), key="Control+Enter"),
             ".sl-strip"),
    )),
    Opened("Steer", f"steer?run={RUN}&latents=3&prompt={TEXTS[0]}", ".sl-curves", (
        Step("another strength", fill("Strengths", "1, 3", "1, 2, 4"), "h4"),
        Step("a strength nobody tried", fill("Strengths", *(f"1, {n / 8}" for n in range(9, 99))), "h4"),
    )),
    Opened("Evaluations", "evaluations?suite=fidelity", ".sl-report", (
        Step("another suite", choose("Sparsity (50)", "Fidelity (50)")),
    )),
    Opened("Evaluations, IOI", "evaluations?suite=ioi", ".js-plotly-plot", ()),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 131_072], metavar="LATENTS")
    parser.add_argument("--run", type=Path, help="a run directory to measure instead of generated ones")
    parser.add_argument("--pages", nargs="+", default=[""], metavar="NAME", help="only pages whose names start so")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the times (ms) to this file")
    arguments = parser.parse_args()
    columns: dict[str, dict[str, list[float]]] = {}
    memory: dict[str, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=list(FLAGS))
        for title, folder in _folders(arguments.run, arguments.sizes):
            with serve([folder]) as (url, server):
                columns[title] = measure(
                    browser, url, arguments.repeats, tuple(arguments.pages), arguments.run is not None
                )
                memory[title] = psutil.Process(server.pid).memory_info().rss / 2**30
        browser.close()
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.repeats} repeats, ms\n")
    print(markdown(columns))
    print("\nMemory of the server at the end: " + ", ".join(f"{t} {size:.1f} GiB" for t, size in memory.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": os.getloadavg()[0], "ms": columns, "GiB": memory}, indent=1))


def measure(browser: Browser, url: str, repeats: int, pages: tuple[str, ...], is_real: bool) -> dict[str, list[float]]:
    """Milliseconds by what was done on the pages whose names start so; what a run does not have is left out."""
    times: dict[str, list[float]] = {}
    times["a new visitor: first paint"], times["a new visitor: numbers of the Dictionary page"] = map(
        list, zip(*[_first_visit(browser, url) for _ in range(max(repeats // 2, 1))], strict=True)
    )
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    for opened in (opened for opened in PAGES if opened.name.startswith(pages)):
        address = f"{url}/{opened.address.replace(f'run={RUN}', '') if is_real else opened.address}"
        if is_real and opened.name.startswith(("Runs", "Evaluations")):
            continue
        page = context.new_page()
        try:
            _open(page, address, opened.ready)  # the first time loads what all later visitors share
            times[f"{opened.name}: open"] = [_open(page, address, opened.ready) for _ in range(repeats)]
            for step in opened.steps:
                acts = [interaction(page, step, n) for n in range(repeats + 1)]
                times[f"{opened.name}: {step.name}"] = acts[1:]  # and so does the first act
        except Exception as problem:  # noqa: BLE001 (a page that changed must not lose the others' numbers)
            print(f"{opened.name}: {str(problem).splitlines()[0]}", file=sys.stderr)
        page.close()
        print(f"  {opened.name}", file=sys.stderr, flush=True)
    context.close()
    return times


def markdown(columns: Mapping[str, Mapping[str, list[float]]]) -> str:
    """A row for each thing done, p50 and p95 for each dictionary."""
    names = list(dict.fromkeys(name for times in columns.values() for name in times))
    lines = [
        "| | " + " | ".join(f"{title}, p50 | p95" for title in columns) + " |",
        "|---" * (1 + 2 * len(columns)) + "|",
    ]
    for name in names:
        cells = [
            f"{statistics.median(times[name]):,.0f} | {p95(times[name]):,.0f}" if name in times else "– | –"
            for times in columns.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _first_visit(browser: Browser, url: str) -> tuple[float, float]:
    """With an empty cache: first contentful paint, and when the tiles stand."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    numbers = _open(page, url, ".sl-tiles")
    paint = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
    context.close()
    return float(paint), numbers


def _open(page: Page, address: str, ready: str) -> float:
    """Milliseconds from navigation until `ready` is there; returns when the server has finished the page."""
    page.goto("about:blank")
    page.goto(address, wait_until="commit")
    seen = page.wait_for_function(
        "selector => document.querySelector(selector) ? performance.now() : false", arg=ready, polling="raf"
    )
    milliseconds = float(seen.json_value())
    _settle(page)
    return milliseconds


def _settle(page: Page) -> None:
    page.wait_for_function("() => document.querySelector('[data-test-script-state=\"notRunning\"]') !== null")
    page.wait_for_timeout(150)


def interaction(page: Page, step: Step, n: int) -> float:
    """From the act until the text of the selector has changed and the server has finished the page."""
    page.evaluate(
        """() => {
          window.started = 0;
          const note = (event) => { if (event.key === undefined || /Enter|Arrow/.test(event.key))
            window.started = performance.now(); };
          for (const kind of ['keydown', 'click']) addEventListener(kind, note, { capture: true });
        }"""
    )
    before = page.locator(step.selector).first.evaluate(SEEN)
    step.act(page, n)
    ended = float(page.wait_for_function(CHANGED, arg=[step.selector, before], polling="raf").json_value())
    taken = ended - float(page.evaluate("() => window.started"))
    page.wait_for_timeout(100)
    return taken


def p95(values: list[float]) -> float:
    """The 95th percentile; the largest of fewer than 20 values."""
    return sorted(values)[max(0, round(0.95 * len(values)) - 1)]


def _folders(run: Path | None, sizes: list[int]) -> Iterator[tuple[str, Path]]:
    """What is measured: a title, and the folder to serve."""
    if run is not None:
        yield run.name, run
        return
    for size in sizes:
        with _generated(size) as folder:
            yield f"{size:,} latents", folder


@contextmanager
def _generated(d_sae: int) -> Iterator[Path]:
    """A folder with one indexed run of this size, small ones beside it, and an IOI report."""
    from saelab.models import LanguageModel

    model = LanguageModel.load("demo")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = Shape(d_sae=d_sae, n_rows=1500, context=64, k=K, d_vocab=model.d_vocab)
        write_run(folder / RUN, shape)
        write_dictionary(RunPaths(folder / RUN), shape, model)
        for number in range(1, OTHERS + 1):
            write_run(folder / f"run-{number}", Shape(d_sae=64, n_rows=8), indexed=False)
        (folder / "ioi").mkdir()
        ioi_report().save(folder / "ioi" / "ioi.json")
        yield folder


def _chromium() -> str:
    path = os.environ.get("SAELAB_CHROMIUM") or shutil.which("chromium")
    if path is None:
        raise SystemExit("no Chromium here: `apt-get install chromium`, or name one in SAELAB_CHROMIUM")
    return path


if __name__ == "__main__":
    main()
