"""What a visitor does: land, open a latent, step with the keys, go back, copy the link, sort and search."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def at_latent(page: Page, number: int) -> None:
    expect(page.get_by_role("heading", name=f"Latent {number}", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile(rf"/latent\?.*latent={number}(&|$)"))


def test_from_the_first_page_to_a_latent_and_back(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", name="small")).to_be_visible()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    card = page.locator("a.sl-card").first
    number = int(re.findall(r"Latent (\d+)", card.inner_text())[0])
    card.click()
    at_latent(page, number)
    page.go_back()
    expect(page.get_by_role("heading", name="All latents")).to_be_visible()


def test_arrow_keys_step_through_latents_but_not_while_typing(page: Page, address: str) -> None:
    page.goto(f"{address}/latent?run=small&latent=5")
    at_latent(page, 5)
    expect(page.get_by_role("button", name="Next")).to_be_visible()  # it carries the key
    page.keyboard.press("ArrowRight")
    at_latent(page, 6)
    page.keyboard.press("ArrowLeft")
    at_latent(page, 5)
    page.go_back()
    at_latent(page, 6)
    box = page.get_by_role("spinbutton")
    box.click()
    box.press("ArrowRight")
    box.fill("40")
    box.press("Enter")
    at_latent(page, 40)


def test_a_link_reproduces_the_view(page: Page, address: str) -> None:
    page.goto(f"{address}/latent?run=small&latent=8")
    at_latent(page, 8)
    page.get_by_text("25–50%", exact=True).click()
    expect(page).to_have_url(re.compile(r"tab=lower"))
    expect(page.locator(".sl-examples")).to_be_visible()
    page.wait_for_timeout(500)
    examples = page.locator(".sl-examples").inner_text()
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator(".sl-examples")).to_have_text(examples, use_inner_text=True)


def test_neighbours_and_short_addresses_lead_to_latents(page: Page, address: str) -> None:
    page.goto(f"{address}/?latent=9")
    at_latent(page, 9)
    page.locator(".sl-near a").first.click()
    at_latent(page, 10)  # the synthetic neighbour of rank 0 is the next latent


def test_the_table_sorts_pages_and_searches(page: Page, address: str) -> None:
    page.goto(f"{address}/?run=small")
    heading = page.locator("th a", has_text="Latent")
    heading.click()
    expect(page.locator("tbody tr").first.locator("td").first).to_have_text("0")
    page.get_by_role("link", name="More →").click()
    expect(page.locator("tbody tr").first.locator("td").first).to_have_text("25")
    page.get_by_label("Fires on, promotes, label, or name").fill("said")
    page.keyboard.press("Enter")
    expect(page.locator(".sl-pager")).to_contain_text(re.compile(r"^1–\d+ of \d+"))
    expect(page).to_have_url(re.compile(r"find=said"))
    expect(page.locator("tbody tr").first).to_contain_text("said")


def test_hostile_text_neither_runs_nor_formats(page: Page, address: str) -> None:
    page.goto(f"{address}/latent?run=small&latent=1")
    expect(page.locator(".sl-examples")).to_contain_text("<script>document.title='owned'</script>")
    expect(page.locator(".sl-examples")).to_contain_text("**bold** `code`")
    assert page.title() != "owned"
    assert page.locator(".sl-examples script, .sl-examples strong, .sl-examples code, [onmouseover]").count() == 0


def test_the_pointer_shows_exact_numbers(page: Page, address: str) -> None:
    page.goto(f"{address}/latent?run=small&latent=8")
    peak = page.locator(".sl-peak").first
    peak.hover()
    tip = peak.evaluate("e => getComputedStyle(e, '::after').content")
    assert re.search(r"activation \d+\.\d{3} · next-token loss \d+\.\d\d nats", tip)


def test_light_and_dark_are_both_readable(page: Page, address: str) -> None:
    """Contrast of text on the strongest highlight: at least 4.5:1, WCAG's line for body text."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{address}/latent?run=small&latent=8")
        peak = page.locator('.sl-token[style="--a:100"]').first
        expect(peak).to_be_visible()
        ink, ground = peak.evaluate("e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]")
        assert contrast(channels(ink), channels(ground)) >= 4.5, (scheme, ink, ground)


def channels(colour: str) -> tuple[float, float, float]:
    """0–1 RGB of a computed CSS colour: `rgb(27, 36, 48)` or `color(srgb 0.94 0.62 0.19)`."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", colour)][:3]
    scale = 1 if colour.startswith("color(") else 255
    return numbers[0] / scale, numbers[1] / scale, numbers[2] / scale


def contrast(one: tuple[float, float, float], two: tuple[float, float, float]) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(colour: tuple[float, float, float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
