"""A page with every kind of part in a real Chromium: it draws, in light and dark, and asks for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import plotly.graph_objects as go
import pytest
from playwright.sync_api import Browser, expect

from saelab.evaluation.page import Cell, Figure, Grid, Heading, Paragraph, Table, write

pytestmark = pytest.mark.browser


def test_a_page_draws_its_figures_and_shows_names_as_they_are(chromium: Browser, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    figure = go.Figure(go.Scatter(x=[1, 2], y=[2, 1], name=evil)).update_layout(showlegend=True, height=300)
    parts = [
        Heading("One"), Heading("Two"), Heading("Three"), Paragraph(evil),
        Table(["", "n"], [[evil, Cell("1", "[0, 2]", "good")]]), Figure(figure, "caption"), Grid([Figure(figure)] * 3),
    ]  # fmt: skip
    write(tmp_path / "page.html", evil, parts)
    grounds: dict[Literal["light", "dark"], str] = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 30)"}
    for scheme, ground in grounds.items():
        context = chromium.new_context(color_scheme=scheme)
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("dialog", lambda dialog, said=said: said.append("a name was run as a script"))
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto((tmp_path / "page.html").as_uri())
        expect(page.locator(".main-svg").first).to_be_visible()
        assert page.locator("figure .js-plotly-plot").count() == 4
        assert page.locator("td", has_text="[0, 2]").count() == 1
        assert evil in page.locator("tbody th").inner_text()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
        context.close()


def test_tables_read_without_scripts(chromium: Browser, tmp_path: Path) -> None:
    write(tmp_path / "page.html", "t", [Table(["", "n"], [["row", "1.5"]]), Figure(go.Figure())])
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.get_by_text("1.5")).to_be_visible()
    expect(page.get_by_text("needs JavaScript")).to_be_visible()
    context.close()
