"""Links inside our own HTML that change the page without loading it anew, and the button that copies the address.

They are real links (they can be copied, or opened in a new tab); a plain click is taken over by a small component that
hands the address to Python. What comes back is a query string like any other: pages check it as they check the URL.
"""

from __future__ import annotations

from html import escape
from typing import NoReturn
from urllib.parse import parse_qs, urlencode

import streamlit as st
from streamlit.components.v2 import component
from streamlit.components.v2.types import ComponentRenderer

_FOLLOW = """
export default function({ setTriggerValue, data }) {
  const chosen = data && data.part ? "a.sl-in-" + data.part : 'a.sl-link:not([class*="sl-in-"])';
  const follow = (event) => {
    const link = event.target.closest && event.target.closest(chosen);
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const address = new URL(link.href);
    setTriggerValue("go", { page: address.pathname.split("/").pop(), query: address.search.slice(1) });
  };
  document.addEventListener("click", follow, true);
  return () => document.removeEventListener("click", follow, true);
}
"""

_GO = "go_to_page"  # in the session, between `go` and the next run of the page
_COPY_HTML = '<button type="button" title="Copy the address of exactly this view"><span>Copy link</span></button>'
_COPY_CSS = """
button { height: 2.35rem; padding: 0 .75rem; border: 1px solid var(--st-border-color);
  border-radius: var(--st-button-radius);
  background: transparent; color: inherit; font: inherit; font-size: .93rem; cursor: pointer;
  white-space: nowrap; width: 100%; }
button:hover, button:focus-visible { border-color: var(--st-primary-color); color: var(--st-primary-color); }
"""
_COPY = """
export default function({ parentElement }) {
  const button = parentElement.querySelector("button"), label = button.querySelector("span");
  button.onclick = async () => {
    let done = "Copied";
    try { await navigator.clipboard.writeText(window.location.href); } catch { done = "Press Ctrl+L, Ctrl+C"; }
    label.textContent = done;
    setTimeout(() => { label.textContent = "Copy link"; }, 1600);
  };
}
"""


@st.cache_resource(show_spinner=False)
def _component(name: str) -> ComponentRenderer:
    """Registered once a server: a second registration of the same name is a warning."""
    if name == "follow":
        return component("saelab_follow", js=_FOLLOW)
    return component("saelab_copy", html=_COPY_HTML, css=_COPY_CSS, js=_COPY)


# Pages as addresses relative to any other.
OVERVIEW, LATENT, RUNS, SEARCH, EVALUATIONS = "./", "latent", "runs", "search", "evaluations"
PROMPT, STEER = "prompt", "steer"


def href(page: str, /, **query: object) -> str:
    """Address of a page with its state, relative to where the app is served; parameters that are None are left out."""
    known = {name: value for name, value in query.items() if value is not None}
    return f"{page}?{urlencode(known, doseq=True)}"


def anchor(inner: str, page: str, classes: str = "", /, **query: object) -> str:
    """A link around `inner`, which is HTML already."""
    return f'<a class="sl-link {classes}" target="_self" href="{escape(href(page, **query))}">{inner}</a>'


def followed() -> tuple[str, dict[str, list[str]]] | None:
    """Where to go instead, as (page, query): a link that was clicked, or what `go` asked for; None to stay."""
    clicked = _component("follow")(key="follow", on_go_change=lambda: None).go
    if _GO in st.session_state:
        return st.session_state.pop(_GO)
    if not isinstance(clicked, dict):
        return None
    return str(clicked.get("page", "")), parse_qs(str(clicked.get("query", "")))


def inside(part: str) -> str:
    """Classes of an `anchor` that changes one part of a page only (see app/part.py), which obeys it by itself."""
    return f"sl-in-{part}"


def followed_inside(part: str) -> dict[str, str] | None:
    """Called in that part: the parameters of its link that was just clicked; None if none was."""
    clicked = _component("follow")(key=f"follow_{part}", data={"part": part}, on_go_change=lambda: None).go
    if not isinstance(clicked, dict):
        return None
    return {name: values[-1] for name, values in parse_qs(str(clicked.get("query", ""))).items()}


def go(page: str, /, **query: str) -> NoReturn:
    """Leave for another page, from the middle of one."""
    st.session_state[_GO] = (page.removeprefix("./"), {name: [value] for name, value in query.items()})
    st.rerun()


def copy_button() -> None:
    """Puts the address in the reader's clipboard, in the browser: no round trip."""
    _component("copy")(key="copy_link", width=104)
