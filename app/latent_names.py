"""How a latent is called on pages that work without a feature index, too."""

from __future__ import annotations

from app import links
from app.latent.portrait import latent_link
from app.prompt.prompts import usable_index
from app.workspace import Run


def linked(run: Run, latent: int) -> str:
    """A link to the latent's page with what is known of it; its bare number where the run has no index."""
    if usable_index(run) is not None:
        return latent_link(run, latent)
    return links.anchor(str(latent), links.LATENT, run=run.name, latent=latent)
