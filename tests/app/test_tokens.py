"""Tokens as HTML."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.tokens import ShownToken, alone, chip, in_text, passage, quoted


@pytest.mark.parametrize(
    ("token", "text", "by_itself"),
    [
        ("said", "said", "said"),
        (" said", " said", '<i class="sl-space">␣</i>said'),
        ("\n", "↵", "↵"),
        ("\t", "⇥", "⇥"),
        ("", "∅", "∅"),
        (" ", '<i class="sl-space">␣</i>', '<i class="sl-space">␣</i>'),
        ("  ", '<i class="sl-space">␣␣</i>', '<i class="sl-space">␣␣</i>'),
        ("<b>", "&lt;b&gt;", "&lt;b&gt;"),
        ("\u202ea", "⟨202E⟩a", "⟨202E⟩a"),
        ("\x00", "⟨0000⟩", "⟨0000⟩"),
        ("**x**", "**x**", "**x**"),
        ("\ufffd", "\ufffd", "\ufffd"),
        ("<|end|>", '<i class="sl-special">&lt;|end|&gt;</i>', "&lt;|end|&gt;"),
        ("<s>", '<i class="sl-special">&lt;s&gt;</i>', "&lt;s&gt;"),
        ("</s>", '<i class="sl-special">&lt;/s&gt;</i>', "&lt;/s&gt;"),
    ],
)
def test_display(token: str, text: str, by_itself: str) -> None:
    assert in_text(token) == text
    assert alone(token) == by_itself


def test_colour_is_activation_over_maximum_and_the_space_stays_outside() -> None:
    shown = passage([ShownToken("He", 0.0), ShownToken(" said", 2.0, 0.5, is_peak=True)], maximum=8.0)
    assert shown == (
        '<span class="sl-token" data-tip="‘He’ · activation 0.000">He</span>'
        ' <span class="sl-token sl-peak" style="--a:25"'
        ' data-tip="‘ said’ · activation 2.000 · next-token loss 0.50 nats">said</span>'
    )


def test_strength_is_clipped_and_a_zero_maximum_has_no_colour() -> None:
    assert "--a:100" in passage([ShownToken("x", 9.0)], maximum=8.0)
    assert "--a" not in passage([ShownToken("x", 1.0)], maximum=0.0)


def test_a_lone_space_is_drawn_only_where_the_latent_is_active_on_it() -> None:
    spelled = [ShownToken(piece, 0.0) for piece in ("a", " ", "Z", "o")]  # as SentencePiece spells a rare word
    assert ">a</span><span" in passage(spelled, 1.0)
    assert "> </span>" in passage(spelled, 1.0)
    assert "␣" in passage([ShownToken("a", 0.0), ShownToken(" ", 0.5)], 1.0)
    assert "␣" in passage([ShownToken("a", 0.0), ShownToken(" ", 0.0, is_peak=True)], 1.0)


class Texts(HTMLParser):
    """The text between tags, and every attribute's value."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.text = ""
        self.tips: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert {name for name, _ in attrs} <= {"class", "style", "data-tip"}
        self.tips += [value or "" for name, value in attrs if name == "data-tip"]

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text())
def test_any_text_stays_text(token: str) -> None:
    for made in (passage([ShownToken("a", 0.0), ShownToken(token, 1.0)], 1.0), chip(token, tip=token)):
        parsed = Texts()
        parsed.feed(made)
        parsed.close()
        assert parsed.tags <= {"span", "i"}
        assert "\u202e" not in parsed.text


def test_quoted_is_for_plain_places() -> None:
    assert quoted(" a\n") == "‘ a↵’"
