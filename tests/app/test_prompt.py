"""The Prompt page's logic: what it shows of a text, what a click or a control changes, and what it says without."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.prompt import prompts
from app.prompt.measure import MEASURES, Measure
from app.prompt.tokens import Cell, strip
from app.workspace import Run
from saelab.disk import RunPaths
from saelab.features.index import FeatureIndex
from tests.app.thinking import CONTEXT, K

OpenPage = Callable[..., AppTest]
HOSTILE = '<script>x</script> **b** "on'


@pytest.fixture
def open_prompt(open_page: OpenPage, minds: Path) -> OpenPage:
    def open_(run: str = "mind", **query: object) -> AppTest:
        page = open_page(minds, run=run)
        page.session_state["go_to_page"] = ("prompt", {"run": [run], **{k: [str(v)] for k, v in query.items()}})
        return page.run()

    return open_


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html"))


def read(minds: Path, text: str) -> prompts.Prompt:
    return prompts.prompt(Run("mind", RunPaths(minds / "mind")), text)


def test_without_a_text_sentences_of_the_index_are_offered(open_prompt: OpenPage) -> None:
    page = open_prompt()
    assert page.title[0].value == "Prompt"
    assert "Or begin with one of these" in html(page)
    assert 'class="sl-link sl-card"' in html(page)
    assert "No text yet" in html(open_prompt("bare"))


def test_a_text_is_shown_token_by_token(open_prompt: OpenPage) -> None:
    page = open_prompt(text="The cat")
    shown = html(page)
    assert not page.exception
    assert shown.count('class="sl-link sl-token sl-pick') == 8  # seven bytes, and the separator before them
    assert shown.count(' sl-left-out"') == 1
    assert "the first token, where models park attention" in page.caption[0].value
    for tile in ("Loss (CE)", "With reconstruction", "Added loss", "Reconstruction error", "Active latents"):
        assert tile in shown
    assert page.subheader[0].value == "Token 7 of 7"
    assert shown.split("<tbody>")[1].count("<tr>") == K
    assert "the direct path only" in page.caption[-1].value


def test_a_token_in_the_address_is_chosen_and_the_keys_step(open_prompt: OpenPage) -> None:
    page = open_prompt(text="The cat", at=2)
    assert page.subheader[0].value == "Token 2 of 7"
    page.button(key="token_Next").click().run()
    assert page.query_params["at"] == "3"
    assert page.subheader[0].value == "Token 3 of 7"
    assert open_prompt(text="The cat", at="99").subheader[0].value == "Token 7 of 7"
    assert open_prompt(text="The cat", at="x").subheader[0].value == "Token 7 of 7"
    first = open_prompt(text="The cat", at=0)
    assert first.button(key="token_Previous").disabled
    assert any("leaves out the first token" in caption.value for caption in first.caption)


def test_latents_sort_by_activation_and_by_effect(open_prompt: OpenPage) -> None:
    def column(kind: str, **query: str) -> list[float]:
        rows = html(open_prompt(text="The cat", at=3, **query)).split("<tbody>")[1]
        pattern = r"sl-mass.*?<span>([\d.]+)" if kind == "value" else r"sl-(?:promoted|suppressed).*?<span>([-+\d.]+)"
        return [float(number) for number in re.findall(pattern, rows)]

    values, effects = column("value"), column("effect", sort="effect")
    assert values == sorted(values, reverse=True)
    assert effects == sorted(effects, reverse=True)
    assert len(values) == len(effects) == K
    up = column("effect", sort="effect", order="up")
    assert up == effects[::-1]


def test_the_token_that_effects_are_on_is_the_next_one_or_the_chosen_one(open_prompt: OpenPage) -> None:
    page = open_prompt(text="The cat", at=2)
    (box,) = [box for box in page.selectbox if box.label.startswith("Direct effect")]
    assert "‘e’ (comes next)" in box.options
    page.session_state["prompt_toward"] = box.value
    other = open_prompt(text="The cat", at=2, toward=40)
    assert other.selectbox(key="prompt_toward").value == 40
    assert html(page).split("<tbody>")[1] != html(other).split("<tbody>")[1]


def test_colours(open_prompt: OpenPage, minds: Path) -> None:
    shown = read(minds, "The cat")
    for name in MEASURES:
        page = open_prompt(text="The cat", colour=name, of=3)
        assert MEASURES[name].unit in html(page).replace("&amp;", "&")
        assert not page.exception
    reading = shown.reading
    assert Measure("l0").values(shown)[1:] == [float(K)] * 7
    assert Measure("loss").maximum([shown]) == pytest.approx(float(reading.clean.loss[:-1].max()))
    assert Measure("latent", 3).values(shown) == reading.of(3).tolist()
    assert open_prompt(text="The cat", colour="nonsense").segmented_control[0].value == "error"


def test_two_texts_side_by_side(open_prompt: OpenPage) -> None:
    page = open_prompt(text="The cat", other="The dog")
    assert page.subheader[0].value == "Latents that differ most"
    whole = html(page)
    assert whole.count('class="sl-strip"') == 2
    tokens = open_prompt(text="The cat", other="The dog", between="tokens", at=5, other_at=5)
    assert "Left: c" in html(tokens)
    assert "Right: d" in html(tokens)
    same = open_prompt(text="The cat", other="The cat")
    assert any(caption.value == "No latent differs." for caption in same.caption)


def test_the_second_text_opens_and_closes(open_prompt: OpenPage) -> None:
    page = open_prompt(text="The cat")
    page.button(key="compare").click().run()
    assert page.query_params["other"] == "The cat"
    page.text_area[1].set_value("A dog").run()
    assert page.query_params["other"] == "A dog"
    page.button(key="compare").click().run()
    assert "other" not in page.query_params


def test_another_text_forgets_the_old_ones_token(open_prompt: OpenPage) -> None:
    page = open_prompt(text="The cat", at=2)
    page.text_area[0].set_value("Tom").run()
    assert page.query_params["text"] == "Tom"
    assert "at" not in page.query_params
    assert page.subheader[0].value == "Token 3 of 3"


def test_what_is_longer_than_the_dictionarys_texts_is_cut_and_said(open_prompt: OpenPage, minds: Path) -> None:
    shown = read(minds, "a" * 40)
    assert len(shown.reading) == CONTEXT
    assert shown.left_out == 41 - CONTEXT
    assert any("Only the first 32 tokens are read" in c.value for c in open_prompt(text="a" * 40).caption)
    assert len(read(minds, "b" * 5000).text) == prompts.LONGEST


def test_hostile_text_is_text(open_prompt: OpenPage) -> None:
    page = open_prompt(text=HOSTILE, other=HOSTILE + "x")
    assert "<script" not in html(page)
    assert not page.exception
    one = open_prompt(text=HOSTILE, at=1)
    assert "&lt;" in html(one)
    assert "<script" not in html(one)
    said = [element.value for kind in (one.markdown, one.caption, one.subheader) for element in kind]
    assert not [text for text in said if "**b**" in text]


def test_cells_escape_what_they_show() -> None:
    cell = Cell('"><b>', 1.0, '" onmouseover="x', {"text": '"<i>'})
    shown = strip([cell], 1.0, "prompt")
    assert "<b>" not in shown
    assert 'onmouseover="x"' not in shown
    assert "%22%3Ci%3E" in shown


def test_queries_say_that_they_have_no_direct_path(open_prompt: OpenPage) -> None:
    page = open_prompt("heads", text="The cat")
    assert any("goes straight to the logits" in caption.value for caption in page.caption)
    assert "Direct effect on" not in html(page)
    assert not page.exception


def test_a_model_that_is_missing_is_a_sentence(open_page: OpenPage) -> None:
    page = open_page(run="small")  # whose model is made of thin air
    page.session_state["go_to_page"] = ("prompt", {"run": ["small"], "text": ["x"]})
    page.run()
    assert not page.exception
    assert "The dictionary can&#x27;t be read" in html(page)


def test_sentences_are_whole(minds: Path) -> None:
    found = prompts.sentences(FeatureIndex(minds / "mind" / "features"))
    assert found
    assert all(re.fullmatch(r"The.*\.|Then.*\.", sentence) for sentence in found)
