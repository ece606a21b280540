"""The latent page beyond its examples: effects on the loss, more text, its file, supervised latents."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import links
from app.latent.file import as_html
from saelab.features import FeatureIndex
from saelab.features.notes import Note
from tests.app.synthetic import Shape, write_run
from tests.app.test_views import html

OpenPage = Callable[..., AppTest]


@pytest.fixture(scope="module")
def index(runs: Path) -> FeatureIndex:
    return FeatureIndex(runs / "small" / "features")


def test_the_effect_on_the_loss_stands_beside_and_under_the_peak(open_page: OpenPage, index: FeatureIndex) -> None:
    shown = html(open_page(run="small", latent=3))
    first = index.examples(3, 0)[0]
    assert first.effect == pytest.approx(0.1 * first.value)  # as the synthetic index has it
    assert f"loss without it {first.effect:+.2f}" in shown
    assert f"without this latent {first.effect:+.3f} nats" in shown
    assert shown.count("without this latent") == len(index.examples(3, 0))  # the peaks alone
    mean = sum(e.effect or 0 for e in index.examples(3, 0)) / 8
    assert f"loss without it <b>{mean:+.3f} nats, mean of 8 top examples</b>" in shown
    assert "loss without it +" not in html(open_page(run="small", latent=3, tab="weak")).split('sl-examples">')[1]


def test_more_text_is_the_whole_row_and_stands_in_the_address(open_page: OpenPage, index: FeatureIndex) -> None:
    example = next(e for e in index.examples(3, 0) if len(e.tokens) < 32)
    page = open_page(run="small", latent=3)
    assert f"open={example.token}" in html(page)
    assert ">less text<" not in html(page)
    opened = open_page(run="small", latent=3, open=example.token)
    passages = html(opened).split('class="sl-row"')[1:]
    here = passages[[e.token for e in index.examples(3, 0)].index(example.token)]
    assert here.count("sl-token") == 32  # the row of the synthetic text
    assert ">less text<" in here
    assert sum(">more text<" in passage for passage in passages) == 7
    opened.button(key="next").click().run()
    assert "open" not in opened.query_params
    assert ">less text<" not in html(open_page(run="small", latent=3, open="../x"))


def test_links_to_steering_and_to_a_text_of_ones_own(open_page: OpenPage) -> None:
    shown = html(open_page(run="small", latent=3))
    assert f'href="{links.STEER}?run=small&amp;latents=3"' in shown
    assert f'href="{links.PROMPT}?run=small&amp;colour=latent&amp;of=3"' in shown


def test_a_supervised_latent_has_its_group_and_value_as_title(open_page: OpenPage, tmp_path: Path) -> None:
    paths = write_run(tmp_path / "mine", Shape(d_sae=24, n_rows=20))
    file = paths.features / "index.json"
    groups = [{"name": "IO <b>", "values": ["Mary"] * 4}, {"name": "S", "values": ["x"] * 20}]
    file.write_text(json.dumps({**json.loads(file.read_text()), "groups": groups}))
    page = open_page(tmp_path, run="mine", latent=3)
    assert '<p class="sl-subtitle">IO &lt;b&gt; = Mary</p>' in html(page)
    assert '4 <span class="sl-given">S = x</span>' in html(page)  # a neighbour
    page.session_state["go_to_page"] = ("search", {"run": ["mine"], "q": ["mary"]})
    assert html(page.run()).count("IO &lt;b&gt; = Mary") == 4


class Page(HTMLParser):
    """Tags and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_file_needs_nothing_else_and_escapes_everything(index: FeatureIndex) -> None:
    for latent in range(0, 24, 3):  # whose tokens are the hostile ones
        page = Page(as_html(index, latent, Note(latent, "<script>x</script>", "<img src=x onerror=y>")))
        tags = {tag for tag, _ in page.tags}
        assert tags.isdisjoint({"script", "img", "link", "iframe", "a", "object"})
        attributes = {name for _, found in page.tags for name in found}
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)
        assert "url(" not in page.text
        assert f"Latent {latent} · <script>x</script>" in page.text
        assert "<img src=x onerror=y>" in page.text
    assert "<script>document.title" in Page(as_html(index, 0, Note(0))).text  # the corpus's own, as text


def test_the_file_holds_what_the_page_shows(index: FeatureIndex) -> None:
    made = as_html(index, 4, Note(4))
    assert made.count('class="sl-row"') == len(index.examples(4))
    for section in ("Strongest", "75–100%", "Fires on", "Promotes", "Suppresses", "Activations", "Matches the labels",
                    "Nearest directions", "Fires together with"):  # fmt: skip
        assert section in made
    bars = [found for tag, found in Page(made).tags if tag == "rect"]
    assert len(bars) == sum(count > 0 for count in index.latent(4).histogram)
    assert "It fired on no token" in as_html(index, 95, Note(95))
