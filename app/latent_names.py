"""How a latent is called in links to its page, on pages that work without a feature index, too."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from app import links, naming, reading
from app.prompt.prompts import usable_index
from app.tokens import alone
from app.workspace import Run


def linked(run: Run, latent: int) -> str:
    """A link to the latent's page with what is known of it; of many latents, ask `linker` once."""
    return linker(run)(latent)


def linker(run: Run) -> Callable[[int], str]:
    """A function from a latent to a link to its page: its number, and its name or the token that carries most of it.

    The bare number where the run has no index.
    """
    index = usable_index(run)
    names = {} if index is None else naming.names(run)
    words = {} if index is None else reading.top_tokens(run)

    def link(latent: int) -> str:
        name = names.get(latent) or (None if index is None else naming.meaning(index, latent))
        if name is not None:
            aside = f' <span class="sl-given">{escape(name)}</span>'
        elif latent in words:
            aside = f' <span class="sl-faint">{alone(words[latent])}</span>'
        else:
            aside = ""
        return links.anchor(f"{latent}{aside}", links.LATENT, run=run.name, latent=latent)

    return link
