"""Pages over several dictionaries and pages that compute: what they show, where figures lead, who sees what."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from saelab.cli.browse import serve
from saelab.disk import RunPaths
from saelab.models import LanguageModel
from tests.app.synthetic import Shape, write_run
from tests.app.synthetic_dictionary import write_dictionary
from tests.app.synthetic_ioi import ioi_report

pytestmark = pytest.mark.browser
TEXT = "The girl was happy."


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on two evaluated runs, one of them with a dictionary that fits the bundled model, and an IOI report."""
    folder = tmp_path_factory.mktemp("several")
    write_run(folder / "one", Shape())
    write_dictionary(RunPaths(folder / "one"), Shape(), LanguageModel.load("demo"))
    write_run(folder / "two", Shape(d_sae=64), indexed=False)
    (folder / "ioi").mkdir()
    ioi_report().save(folder / "ioi" / "ioi.json")
    with serve([folder]) as (address, _):
        yield address


DRAWN = """canvas => {  // where there is a point, on the page
  const { width, height } = canvas, box = canvas.getBoundingClientRect();
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let at = 0;
  for (let n = 0; n < width * height; n++) if (pixels[4 * n + 3] > pixels[4 * at + 3]) at = n;
  return [box.x + (at % width) * box.width / width, box.y + Math.floor(at / width) * box.height / height];
}"""


def click_point(page: Page, point: Locator) -> None:
    """A click where the point is: plotly listens on a layer above it."""
    point.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # figures ease into place
    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(300)  # and find the point under the pointer in their own time
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_runs_lead_to_dictionaries(page: Page, url: str) -> None:
    page.goto(f"{url}/runs")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.locator("th a", has_text="Latents").click()
    expect(page).to_have_url(re.compile("sort=d_sae"))
    click_point(page, page.locator(".js-plotly-plot .points path").first)
    expect(page.get_by_role("heading", name=re.compile("^(one|two)$"))).to_be_visible()


def test_the_map_leads_to_latents(page: Page, url: str) -> None:
    page.goto(f"{url}/?run=one")
    expect(page.get_by_role("heading", name="Map of decoder directions")).to_be_visible()
    canvas = page.locator("[data-drawn=density] canvas")
    canvas.scroll_into_view_if_needed()
    x, y = canvas.evaluate(DRAWN)
    page.mouse.move(x, y)
    expect(page.get_by_text(re.compile(r"^latent \d+\nfires on"))).to_be_visible()
    page.mouse.click(x, y)
    expect(page).to_have_url(re.compile(r"/latent\?.*latent=\d+"))


def test_the_map_zooms_and_changes_colour_and_the_table_keeps_it(page: Page, url: str) -> None:
    page.goto(f"{url}/?run=one")
    canvas = page.locator("[data-drawn] canvas")
    canvas.scroll_into_view_if_needed()
    first = canvas.evaluate("canvas => canvas.toDataURL()")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 300, steps=4)
    page.mouse.up()
    assert canvas.evaluate("canvas => canvas.toDataURL()") != first  # and no latent was opened
    canvas.dblclick(position={"x": 2, "y": 2})
    assert canvas.evaluate("canvas => canvas.toDataURL()") == first
    page.get_by_role("radio", name="Best label").click()
    expect(page.locator("[data-drawn=label]")).to_be_visible()
    expect(page.get_by_text("others, or none")).to_be_visible()
    expect(page).to_have_url(re.compile("colour=label"))
    page.locator("th a", has_text="Largest").click()
    expect(page.locator("th a", has_text="Largest ↓")).to_be_visible()
    expect(page).to_have_url(re.compile("(?=.*sort=max_activation)(?=.*colour=label)"))
    page.reload()
    expect(page.locator("th a", has_text="Largest ↓")).to_be_visible()
    expect(page.locator("[data-drawn=label]")).to_be_visible()


def test_evaluations_by_suite_and_the_judgement(page: Page, url: str) -> None:
    page.goto(f"{url}/evaluations")
    expect(page.locator(".sl-report thead").first).to_contain_text("two")
    page.get_by_text("Sparsity (2)").click()
    expect(page.locator(".sl-report").first).to_contain_text("Zipf law")
    page.get_by_text("IOI (1)").click()
    expect(page.get_by_role("heading", name="The circuit")).to_be_visible()
    expect(page).to_have_url(re.compile("suite=ioi"))
    page.goto(f"{url}/evaluations?suite=ioi&part=(B)NM%20z")
    expect(page.locator(".sl-report", has_text="k = 4")).to_contain_text("task topk (agnostic)")
    page.goto(f"{url}/evaluations?suite=fidelity&runs=two")
    expect(page.locator(".sl-report thead").first).not_to_contain_text("one")


def test_prompt_and_steer_compute(page: Page, url: str) -> None:
    page.goto(f"{url}/prompt?run=one&text={TEXT}")
    tokens = page.locator("a.sl-pick")
    expect(tokens.first).to_be_visible()
    tokens.nth(1).click()
    expect(page).to_have_url(re.compile(r"[?&]at=1(&|$)"))
    page.goto(f"{url}/steer?run=one&latents=3&prompt={TEXT}")
    expect(page.locator(".sl-curves").first).to_be_visible()


def test_two_visitors_see_their_own(chromium: Browser, url: str) -> None:
    def visitor() -> Page:
        page = chromium.new_context().new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{url}/evaluations?suite=fidelity&runs=one&runs=two")
        expect(page.locator(".sl-report thead").first).to_contain_text("two", timeout=60_000)
        return page

    first, second = visitor(), visitor()
    first.get_by_text("Sparsity (2)").click()
    expect(first.locator(".sl-report").first).to_contain_text("Zipf law", timeout=60_000)
    second.reload()
    expect(second.locator(".sl-report").first).to_contain_text("CE clean", timeout=60_000)
    expect(second).to_have_url(re.compile("suite=fidelity"))
    for page in (first, second):
        page.context.close()
