"""How training went, or is going: reconstruction, sparsity and dead latents over tokens seen."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import figures, reading
from app.notation import counted, plain
from app.workspace import Run
from saelab.errors import UserError

POINTS = 400  # per curve; more can't be seen
REFRESH_SECONDS = 2.0
CURVES = (
    ("fvu", "FVU (training)", True),
    ("l0", "active latents per token", False),
    ("dead", "dead latents", False),
    ("latents_in_use", "latents in use", False),
)


def training_curves(run: Run) -> None:
    """The curves; while the run trains they are read again every other second, without the rest of the page."""
    if not run.paths.metrics.is_file():
        return
    st.subheader("Training")
    live = run.is_training
    st.fragment(_curves, run_every=REFRESH_SECONDS if live else None)(run, live)


def _curves(run: Run, live: bool) -> None:
    if live and run.has_dictionary:
        st.rerun()  # it has finished meanwhile: the whole page has more to show now
    try:
        lines = reading.metrics(run)
    except (UserError, OSError) as problem:  # a fragment runs by itself, outside what the frame catches
        st.caption(f"The metrics can't be read: {plain(str(problem))}")
        return
    if not lines:
        st.caption("Training has begun; the first numbers come with the first line of metrics.")
        return
    st.caption(_progress(run, lines[-1]))
    shown = thinned(lines)
    tokens = [line["tokens"] for line in shown]
    known = [curve for curve in CURVES if any(line.get(curve[0]) is not None for line in shown)]
    for column, (key, name, log) in zip(st.columns(len(known)), known, strict=True):
        values = [line.get(key) for line in shown]
        column.plotly_chart(figures.training_curve(tokens, values, name, log), config=figures.CHART, key=f"curve_{key}")


def _progress(run: Run, last: dict[str, Any]) -> str:
    reached = f"{counted(int(last['tokens']))} tokens, step {last['step']:,}"
    if run.is_training:
        return f"Training now: {reached}, {last.get('tokens_per_s', 0):,.0f} tokens/s."
    return f"Trained on {reached}." if run.has_dictionary else f"Stopped at {reached}; the same command continues it."


def thinned(lines: list[dict[str, Any]], points: int = POINTS) -> list[dict[str, Any]]:
    """At most `points` of the lines, evenly spread, the last one always among them."""
    if len(lines) <= points:
        return lines
    return [lines[(i + 1) * len(lines) // points - 1] for i in range(points)]
