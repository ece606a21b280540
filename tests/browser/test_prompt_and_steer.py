"""The pages that compute, in a real browser: tokens that are clicked, texts that are stopped, settings that travel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from saelab.cli.browse import serve
from tests.app.thinking import readable, write_thinking_run

pytestmark = pytest.mark.browser

HOSTILE = "<script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    """The app on one run called `mind`, whose model is real."""
    folder = tmp_path_factory.mktemp("minds")
    write_thinking_run(folder / "mind", readable(tiny_model, folder / ".model"))
    with serve([folder]) as (url, _):
        yield url


def test_a_token_is_clicked_and_the_keys_go_on(page: Page, thinking: str) -> None:
    page.goto(f"{thinking}/prompt?run=mind")
    field = page.get_by_role("textbox", name="Text")
    field.fill("The cat")
    field.press("Control+Enter")
    expect(page.get_by_role("heading", name="Token 7 of 7")).to_be_visible()
    page.locator("a.sl-pick").nth(3).click()
    expect(page.get_by_role("heading", name="Token 3 of 7")).to_be_visible()
    expect(page).to_have_url(re.compile(r"at=3"))
    page.locator("h1").click()  # out of the text field
    page.locator('[data-test-script-state="notRunning"]').wait_for()  # a key is lost while the page is drawn anew
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", name="Token 4 of 7")).to_be_visible()
    page.locator("th a", has_text="Direct effect").click()
    expect(page).to_have_url(re.compile(r"sort=effect"))
    expect(page.locator("tbody tr")).to_have_count(6)
    page.locator("tbody tr").first.get_by_role("link", name="steer").click()
    expect(page.get_by_role("heading", name="Steer", exact=True)).to_be_visible()
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("The cat")


def test_writing_can_be_stopped(page: Page, thinking: str) -> None:
    page.goto(f"{thinking}/steer?run=mind&latents=9&prompt=The&strength=1,2,3,4,5,6&samples=6&max_new_tokens=25")
    main = page.get_by_test_id("stMain")
    main.get_by_role("button", name="Write 42 texts").click()
    main.get_by_role("button", name="Stop").click()
    expect(main.get_by_role("button", name="Write 42 texts")).to_be_visible()
    texts = page.locator(".sl-text")
    expect(texts).to_have_count(42)
    assert "The" in [text.strip().removeprefix("seed 5").strip() for text in texts.all_inner_texts()]  # not begun


def test_settings_travel_as_a_file(page: Page, thinking: str) -> None:
    page.goto(f"{thinking}/steer?run=mind&latents=9,3&prompt=The&strength=2&positions=1:")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save settings").click()
    path = download.value.path()
    page.goto(f"{thinking}/steer?run=mind")
    expect(page.get_by_text("Name latents first")).to_be_visible()
    page.locator("input[type=file]").set_input_files(
        {"name": "steering.json", "mimeType": "application/json", "buffer": path.read_bytes()}
    )
    expect(page).to_have_url(re.compile(r"latents=9%2C"))
    expect(page.get_by_role("textbox", name="Latents")).to_have_value("9, 3")
    expect(page.locator(".sl-curves").first).to_be_visible()


def test_what_is_typed_neither_runs_nor_formats(page: Page, thinking: str) -> None:
    for address in ("prompt?run=mind&text=", "steer?run=mind&latents=9&max_new_tokens=3&prompt="):
        page.goto(f"{thinking}/{address}{HOSTILE[:24]}**b**")
        expect(page.locator(".sl-strip")).to_contain_text("<script>")
        expect(page.locator(".sl-strip")).to_contain_text("**b**")
        assert page.locator(".sl-strip script, .sl-strip strong").count() == 0
        assert page.title() != "owned"
