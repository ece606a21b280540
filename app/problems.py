"""What a page says when there is nothing to show: one sentence, and the command that would change it."""

from __future__ import annotations

from html import escape

import streamlit as st


class NothingToShowError(Exception):
    """Raised by a page that can't go on; the frame shows it in the page's place.

    Args:
        title: what is missing, in a few words.
        sentence: why, and what to do.
        command: a shell command that would do it, if one would.
    """

    def __init__(self, title: str, sentence: str, command: str | None = None) -> None:
        super().__init__(sentence)
        self.title, self.sentence, self.command = title, sentence, command


def empty_state(title: str, sentence: str, command: str | None = None) -> None:
    """A quiet box in the place of what would be here. All text is escaped."""
    code = f"<p><code>{escape(command)}</code></p>" if command else ""
    st.html(f'<div class="sl-empty" role="status"><h3>{escape(title)}</h3><p>{escape(sentence)}</p>{code}</div>')
