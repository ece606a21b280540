"""What surrounds every page: title, style, the picker of runs; links; and a sentence where a page can't be shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from app import links, state
from app.problems import told
from app.routes import Route

_HERE = Path(__file__).parent


def show(routes: Sequence[Route]) -> None:
    """Run the page that the address names, inside the frame."""
    pages = [route.page for route in routes]
    page = st.navigation(pages, position="hidden")
    st.set_page_config(page_title=f"saelab · {page.title}", page_icon=str(_HERE / "icon.svg"), layout="wide")
    st.html(_HERE / "style.css")
    st.logo(str(_HERE / "logo.svg"), size="large")
    _follow(page, pages)
    with st.sidebar:
        _navigation(routes)
        if page.url_path not in (links.RUNS, links.EVALUATIONS):  # which show several
            _run_picker()
    with told(page.title):
        page.run()


def _follow(page: st.Page, pages: Sequence[st.Page]) -> None:
    """Go where a clicked link points: the same page gets its new state at once, another is switched to."""
    clicked = links.followed()
    # The short address /?latent=123, on arrival only: Streamlit leaves such an entry in the browser's history at every
    # change of page, and going back to it must not lead forward again.
    if state.has_just_arrived() and page.url_path == "" and state.LATENT in st.query_params:
        clicked = (links.LATENT, {name: st.query_params.get_all(name) for name in st.query_params})
    if clicked is None:
        return
    path, query = clicked
    target = next((p for p in pages if p.url_path == path), page)
    if target.url_path == page.url_path:
        st.query_params.from_dict(query)
    else:
        st.switch_page(target, query_params=query)


def _navigation(routes: Sequence[Route]) -> None:
    """Links to the pages; they keep the run."""
    run = state.run_name()
    for route in routes:
        st.page_link(route.page, icon=route.icon, query_params={state.RUN: run} if run else None, width="stretch")
    st.space("small")


def _run_picker() -> None:
    names = list(state.workspace().runs)
    if not names:
        return
    shown = state.run_name()
    st.session_state["picked"] = shown if shown in names else None
    st.selectbox("Run", names, key="picked", on_change=_pick, placeholder="Choose a run")


def _pick() -> None:
    """Another run: the same page of it, without the latent, which means nothing there."""
    picked = st.session_state["picked"]
    if picked is not None:
        st.session_state[state.RUN] = picked
        st.query_params.from_dict({state.RUN: picked})
