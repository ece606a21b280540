"""Pages: parts of reports as HTML that needs nothing else, and tables in other forms."""

import io
import json
import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest
from rich.console import Console

from saelab.evaluation.figures.style import label
from saelab.evaluation.page import Cell, Figure, Grid, Heading, Paragraph, Table, html, write
from saelab.evaluation.printing import markdown, rich_table

EVIL = '<script>alert("x")</script>'


class Reader(HTMLParser):
    """Every tag that is opened, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.inside):
            self.text += data


def evil_parts() -> list:
    figure = go.Figure(go.Scatter(x=[1], y=[2], name=label(EVIL)))
    return [
        Heading(EVIL),
        Paragraph(EVIL, "bad"),
        Table([EVIL, "n"], [[EVIL, Cell(EVIL, EVIL, "good")], [Cell(EVIL)]], EVIL, [EVIL], [EVIL]),
        Figure(figure, EVIL),
        Grid([Figure(figure, EVIL)]),
    ]


def test_names_are_text_wherever_they_stand() -> None:
    plain = html("t", [Table(["a", "b"], [["c", "d"]]), Figure(go.Figure())])
    page = html(EVIL, evil_parts())
    assert 'alert("x")</script>' not in page
    # The library, the drawing and the data of two figures; no name has become a script of its own.
    assert Reader(page).tags.count("script") == Reader(plain).tags.count("script") + 1
    assert Reader(page).text.count(EVIL) == 14


def test_data_of_figures_comes_back_as_it_was() -> None:
    figure = go.Figure(go.Scatter(x=[1.5, 2.5], y=[0, 1], name="</script><b>"))
    page = html("t", [Figure(figure)])
    data = re.search(r'<script type="application/json" class="figure">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    content = json.loads(data[1])
    assert content["data"][0]["x"] == [1.5, 2.5]
    assert content["data"][0]["name"] == "</script><b>"
    assert "template" not in content["layout"]


def test_a_page_asks_for_nothing_and_reads_without_scripts(tmp_path) -> None:
    write(tmp_path / "page.html", "Title", [Heading("One"), Table(["a", "b"], [["row", "1.5"]]), Figure(go.Figure())])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    assert "1.5" in Reader(page).text
    assert "needs JavaScript" in Reader(page).text
    assert "prefers-color-scheme: dark" in page


def test_a_page_without_figures_has_no_script() -> None:
    assert "<script" not in html("t", [Table(["a"], [["b"]])])


def test_sections_are_linked_and_no_anchor_is_there_twice() -> None:
    page = html("t", [Heading("ΔCE"), Heading("A b!"), Heading("A b?"), Heading("deep", 3)])
    assert re.findall(r'<a href="#(.*?)">', page) == re.findall(r'<h2 id="(.*?)">', page) == ["ce", "a-b", "a-b-2"]


def test_a_row_of_one_cell_runs_across() -> None:
    assert '<th class="across bad" colspan="3">all</th>' in html(
        "t", [Table(["", "b", "c"], [[Cell("all", mark="bad")]])]
    )


def test_a_row_that_is_too_short_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        html("t", [Table(["", "b", "c"], [["one", "two"]])])


def test_markdown_keeps_bars_inside_their_cells() -> None:
    table = Table(["", "x|y"], [["a|b", Cell("1", "(0 … 2)")], [Cell("all")]], "T", ["said"], ["warned"])
    assert markdown(table).splitlines() == [
        "**T**", "",
        r"|      |      x\|y |",
        "| ---- | --------: |",
        r"| a\|b | 1 (0 … 2) |",
        "| all  |           |",
        "", "warned", "", "said",
    ]  # fmt: skip


def test_brackets_in_names_are_no_markup_on_a_terminal() -> None:
    file = io.StringIO()
    table = Table(["[bold]x[/bold]"], [["[red]y"]], "[dim]", ["[/]"], ["[blink]"])
    Console(width=80, file=file).print(rich_table(table))
    for text in ("[bold]x[/bold]", "[red]y", "[dim]", "[/]", "[blink]"):
        assert text in file.getvalue()
