"""The pages, in the order of the navigation. A page is a module in `app/views` with a `show()`, and one line here."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import links
from app.views import latent, overview, runs, search


@dataclass(frozen=True)
class Route:
    """A page and its icon. The icon is kept apart: Streamlit would fetch a page's own icon from the internet."""

    page: st.Page
    icon: str


def routes() -> list[Route]:
    """What the navigation lists; a bare address shows the one that is the default."""
    return [
        Route(st.Page(runs.show, title="Runs", url_path=links.RUNS), ":material/table_rows:"),
        Route(st.Page(overview.show, title="Dictionary", url_path="dictionary", default=True), ":material/grid_view:"),
        Route(st.Page(latent.show, title="Latent", url_path=links.LATENT), ":material/lightbulb:"),
        Route(st.Page(search.show, title="Search", url_path=links.SEARCH), ":material/search:"),
    ]
