"""The pages, in the order of the navigation. A page is `page.show` in a folder of its own, and one line here."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import links
from app.dictionary import page as dictionary
from app.evaluations import page as evaluations
from app.latent import page as latent
from app.prompt import page as prompt
from app.runs import page as runs
from app.search import page as search
from app.steer import page as steer


@dataclass(frozen=True)
class Route:
    """A page and its icon. The icon is kept apart: Streamlit would fetch a page's own icon from the internet."""

    page: st.Page
    icon: str


def routes() -> list[Route]:
    """What the navigation lists; a bare address shows the one that is the default."""
    return [
        Route(st.Page(runs.show, title="Runs", url_path=links.RUNS), ":material/table_rows:"),
        Route(
            st.Page(dictionary.show, title="Dictionary", url_path="dictionary", default=True), ":material/grid_view:"
        ),
        Route(st.Page(latent.show, title="Latent", url_path=links.LATENT), ":material/lightbulb:"),
        Route(st.Page(search.show, title="Search", url_path=links.SEARCH), ":material/search:"),
        Route(st.Page(prompt.show, title="Prompt", url_path=links.PROMPT), ":material/notes:"),
        Route(st.Page(steer.show, title="Steer", url_path=links.STEER), ":material/tune:"),
        Route(st.Page(evaluations.show, title="Evaluations", url_path=links.EVALUATIONS), ":material/bar_chart:"),
    ]
