"""What the address says: which run, which latent. None of it is trusted, and visitors share nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from app.problems import NothingToShowError
from app.workspace import Run, Workspace, open_workspace

RUN, LATENT = "run", "latent"


@st.cache_resource(ttl=3, show_spinner=False)
def _workspace(folders: tuple[str, ...]) -> Workspace:
    return open_workspace(Path(folder) for folder in folders)


def workspace() -> Workspace:
    """The runs under the folders that the server was started with, looked up every few seconds."""
    return _workspace(tuple(sys.argv[1:]))


def chosen_run() -> Run:
    """The run named in the address, else the one this visitor saw last, else the first; the address then says it.

    Raises:
        NothingToShowError: there is no run, or none of that name.
    """
    found = workspace()
    places = ", ".join(str(folder) for folder in found.folders) or "no folder"
    if not found.runs:
        raise NothingToShowError(
            "No runs here yet",
            f"Looked in {places}. Make a first dictionary, or open the folder that holds yours.",
            "saelab demo",
        )
    name = st.query_params.get(RUN)
    run = found.get(run_name())
    if run is None:
        raise NothingToShowError(
            f"No run named “{name}”", f"Choose one of {len(found.runs)} on the left; looked in {places}."
        )
    st.session_state[RUN] = run.name
    if name != run.name:
        st.query_params[RUN] = run.name
    return run


def run_name() -> str | None:
    """Name of the run to show, whether or not there is one of that name; None where there are no runs at all."""
    if named := st.query_params.get(RUN):
        return named
    runs = workspace().runs
    if (seen := st.session_state.get(RUN)) in runs:
        return seen
    return next((name for name, run in runs.items() if run.has_index), next(iter(runs), None))


def chosen_latent(d_sae: int) -> int:
    """The latent in the address, 0 when there is none.

    Raises:
        NothingToShowError: it is not a number below `d_sae`.
    """
    text = st.query_params.get(LATENT, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < d_sae):
        raise NothingToShowError(f"No latent “{text[:40]}”", f"This dictionary has the latents 0 to {d_sae - 1:,}.")
    return int(text)


def go_to_latent(number: int) -> None:
    """For callbacks: the next run of the page shows this latent."""
    st.query_params[LATENT] = str(number)


def has_just_arrived() -> bool:
    """Whether this is the visitor's first page."""
    first = "arrived" not in st.session_state
    st.session_state["arrived"] = True
    return first
