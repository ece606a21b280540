"""The settings to take along: as a file for `saelab steer` and for this page, and as Python lines."""

from __future__ import annotations

import streamlit as st

from app.notation import plain
from app.steer.settings import LATENTS, as_json, as_python, from_json, to_address
from app.workspace import Run
from saelab.errors import UserError
from saelab.steering.config import SteerConfig

FILE = "steering.json"
_ROUND, _SAID = "steer_file_round", "steer_file_said"  # in the session


def files(run: Run, config: SteerConfig | None) -> None:
    """The section; without settings, only the place to open some."""
    st.subheader("Take it along", anchor=False)
    left, right = st.columns(2, gap="large")
    with right:
        key = f"steer_file_{st.session_state.get(_ROUND, 0)}"  # another key empties the field
        st.file_uploader("Open settings", type="json", key=key, on_change=_open, args=(run, key))
        if said := st.session_state.get(_SAID):
            st.caption(said)
    if config is None:
        left.caption("Name latents first; then the settings can be saved here.")
        return
    with left:
        st.download_button(
            "Save settings", as_json(config), FILE, "application/json", icon=":material/download:", on_click="ignore"
        )
        st.caption("The same texts on the command line, with that file; or in Python:")
        st.code(f"saelab steer {FILE}", language="bash")
    st.code(as_python(config), language="python")


def _open(run: Run, key: str) -> None:
    """Put a file's settings into the address."""
    chosen = st.session_state[key]
    if chosen is None:
        return
    st.session_state[_ROUND] = st.session_state.get(_ROUND, 0) + 1
    try:
        config = from_json(chosen.getvalue())
    except UserError as problem:
        st.session_state[_SAID] = f"Not opened: {plain(str(problem))}"
        return
    st.query_params.from_dict({"run": run.name, **to_address(config)})
    st.session_state[_SAID] = f"Opened: latents {st.query_params[LATENTS]}."
    if config.run.name != run.paths.root.name:
        name = plain(config.run.name)
        st.session_state[_SAID] += f" They were chosen in the run {name}; latents of that number are others here."
