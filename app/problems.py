"""What a page says when there is nothing to show: one sentence, and the command that would change it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import duckdb
import streamlit as st

from saelab.errors import UserError


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


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say in a sentence why `what` can't be shown, in its place, whatever went wrong inside."""
    try:
        yield
    except NothingToShowError as problem:
        empty_state(problem.title, problem.sentence, problem.command)
    except UserError as problem:
        empty_state("This can't be read", str(problem))
    except (OSError, duckdb.Error) as problem:  # a run that is being rewritten or has just been deleted
        logging.warning("while showing %s: %s", what, problem)
        empty_state("This run changed while it was being read", "Reload the page; if it stays, index the run again.")
    except Exception:
        logging.exception("while showing %s", what)
        empty_state("This page failed", "That is a fault in saelab; the terminal that runs `saelab browse` says more.")
