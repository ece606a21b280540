"""Tokens as HTML: escaped, whitespace made visible, coloured by how strongly a latent fires on them.

Text comes from corpora and is never trusted: every string passes `html.escape`, and control and direction-changing
characters are spelled out, so that what a page shows is what the model saw.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from app.notation import signed

NEWLINE, TAB, SPACE, NOTHING = "↵", "⇥", "␣", "∅"
SPECIAL = re.compile(r"<\|.+\|>|</?s>|<(?:bos|eos|pad|unk|mask)>")  # GPT's and SentencePiece's


@dataclass(frozen=True)
class ShownToken:
    """One token of an example: its text, the latent's activation on it, the model's loss there (nats) where known.

    `effect`: what the loss there gains when the latent's contribution is taken away (nats), where that was measured.
    """

    text: str
    value: float
    loss: float | None = None
    is_peak: bool = False
    effect: float | None = None


def in_text(token: str) -> str:
    """A token as part of running text: its leading space is a space, a newline is an arrow. Escaped."""
    if not token.strip(" "):
        return _faint(SPACE * len(token)) or NOTHING
    if SPECIAL.fullmatch(token):  # there for the model, a distraction for readers
        return f'<i class="sl-special">{escape(token)}</i>'
    return escape(_spell_out(token))


def alone(token: str) -> str:
    """A token by itself, in a list: leading and trailing spaces are drawn, they are part of its identity. Escaped."""
    if not token:
        return NOTHING
    stripped = token.strip(" ")
    left = len(token) - len(token.lstrip(" ")) if stripped else len(token)
    right = len(token) - len(token.rstrip(" ")) if stripped else 0
    return f"{_faint(SPACE * left)}{escape(_spell_out(stripped))}{_faint(SPACE * right)}"


def running(text: str) -> str:
    """Text as it was written, lines and all; only characters that would not show, or turn others round, are spelled
    out. Escaped."""
    return "\n".join(escape(_spell_out(line)) for line in text.split("\n"))


def chip(token: str, kind: str = "plain", tip: str = "") -> str:
    """A token in a rounded box; `kind` is a CSS modifier (plain, promoted, suppressed)."""
    about = f' data-tip="{escape(tip)}"' if tip else ""
    return f'<span class="sl-chip sl-{kind}"{about}>{alone(token)}</span>'


def passage(tokens: Iterable[ShownToken], maximum: float, tips: bool = True) -> str:
    """A run of tokens; background strength is activation / `maximum`; with `tips` the pointer shows exact numbers."""
    return "".join(_token(token, maximum, tips) for token in tokens).lstrip(" ")


def legend(maximum: float) -> str:
    """The colour scale of `passage`, from 0 to `maximum`."""
    return (
        '<div class="sl-legend"><span>0</span><span class="sl-scale" role="img" aria-label="colour scale: '
        f'deeper is stronger"></span><span>{maximum:.3g}</span><span class="sl-faint">activation</span></div>'
    )


def _token(token: ShownToken, maximum: float, tips: bool) -> str:
    strength = round(100 * min(max(token.value / maximum, 0.0), 1.0)) if maximum > 0 else 0
    classes = "sl-token sl-peak" if token.is_peak else "sl-token"
    style = f' style="--a:{strength}"' if strength else ""
    tip = f' data-tip="{escape(_numbers(token))}"' if tips else ""
    # A word's leading space stays outside the colour: it would hang at the end of the line before.
    word = token.text.lstrip(" ") or token.text
    space = token.text[: len(token.text) - len(word)]
    # A lone space is drawn where the latent is active on it; elsewhere it would only tear the text apart.
    inner = in_text(word) if strength or token.is_peak or word.strip(" ") or not word else word
    return f'{space}<span class="{classes}"{style}{tip}>{inner}</span>'


def _numbers(token: ShownToken) -> str:
    loss = f" · next-token loss {token.loss:.2f} nats" if token.loss is not None else ""
    effect = f"\nwithout this latent {signed(token.effect, 3)} nats" if token.effect is not None else ""
    return f"{quoted(token.text)} · activation {token.value:.3f}{loss}{effect}"


def quoted(token: str) -> str:
    """A token for a plain-text place (a tooltip, say), not escaped: spaces kept between quotes, newlines as arrows."""
    return f"‘{_spell_out(token)}’"


def _spell_out(text: str) -> str:
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in "\n\t":
        return NEWLINE if character == "\n" else TAB
    if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
        return f"⟨{ord(character):04X}⟩"
    return character


def _faint(text: str) -> str:
    return f'<i class="sl-space">{text}</i>' if text else ""


def rows(passages: Sequence[tuple[str, str]]) -> str:
    """Examples as rows: (what stands on the left, the passage)."""
    cells = "".join(
        f'<div class="sl-row"><div class="sl-meta">{meta}</div><p>{text}</p></div>' for meta, text in passages
    )
    return f'<div class="sl-examples">{cells}</div>'
