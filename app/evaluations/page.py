"""All that was measured: reports of several dictionaries side by side, and the judgement against the truth (IOI)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import streamlit as st

from app import address, reading, state
from app.evaluations import judged, parts, together
from app.notation import plain
from app.problems import NothingToShowError, empty_state
from app.workspace import IOI, Run, Workspace
from saelab.errors import UserError
from saelab.evaluation import sections
from saelab.evaluation.page import Part
from saelab.evaluation.reports import REPORTS, AnyReport

SUITE, RUNS = "suite", "runs"  # in the address
TOGETHER = "together"  # not a suite, but a report of several dictionaries in one pass
FIRST = 8  # dictionaries side by side, unless more are asked for
PREPARED = 16  # sets of reports whose tables and figures are kept; a few hundred kilobytes each


def show() -> None:
    """The page."""
    found = state.workspace()
    if not found.runs and not found.judged:
        raise NothingToShowError("No runs here yet", "Make a first dictionary.", "saelab demo")
    st.title("Evaluations", anchor=False)
    suites = [*REPORTS, TOGETHER, IOI]
    made = {suite: _having(found, suite) for suite in suites}
    suite = _suite(made)
    if suite == IOI:
        judged.show(found)
        return
    chosen = _chosen(found, made[suite])
    if not chosen:
        how = "RUN --together" if suite == TOGETHER else f"--suite {suite}"
        command = f"saelab evaluate {_example(found)} {how}"
        empty_state("Nothing measured yet", f"None of the dictionaries chosen has a {suite} report.", command)
        return
    if suite == TOGETHER:
        together.show(chosen)
        return
    reports = _read(chosen, suite)
    if reports:
        key = "\n".join(f"{name} {reading.stamp(found.runs[name].paths.report(suite))}" for name in reports)
        parts.show(_parts(reports, suite, key), suite)
        if len(reports) > 1:
            command = " ".join(["saelab compare", *(str(found.runs[name].paths.root) for name in reports)])
            st.caption("Are the differences more than chance? Paired over documents, and at the same L0:")
            st.code(command, language="bash", wrap_lines=True)
        with st.expander("Settings and definitions"):
            parts.show(_settings(reports, suite, key), f"{suite}-settings")


def _suite(made: Mapping[str, list[str]]) -> str:
    """The suite in the address, behind the control that changes it; else the first that was measured."""
    first = next((suite for suite, names in made.items() if names), next(iter(made)))
    titles = {suite: _title(suite, len(names)) for suite, names in made.items()}
    return address.choice("Suite", SUITE, titles, first, label_visibility="collapsed")


def _title(suite: str, reports: int) -> str:
    name = "IOI" if suite == IOI else suite.capitalize()
    return f"{name} ({reports})" if reports else f"{name} (none)"


def _having(found: Workspace, suite: str) -> list[str]:
    """Names of what has such a report."""
    runs = [run.name for run in found.runs.values() if run.paths.report(suite).is_file()]
    return [*found.judged, *runs] if suite == IOI else runs


def _chosen(found: Workspace, having: list[str]) -> list[Run]:
    """The runs in the address, behind the control that changes them; else those first in line."""
    named = [name for name in st.query_params.get_all(RUNS) if name in found.runs]
    if not named:
        named = first_in_line(found, having, state.run_name())
        st.query_params[RUNS] = named
    st.session_state["compared"] = named
    names = st.multiselect(
        "Dictionaries", sorted({*having, *named}), key="compared", on_change=_keep_runs,
        placeholder="Choose dictionaries to compare",
    )  # fmt: skip
    return [found.runs[name] for name in names if name in having]


def _keep_runs() -> None:
    st.query_params[RUNS] = st.session_state["compared"]


def first_in_line(found: Workspace, having: list[str], current: str | None) -> list[str]:
    """The reader's own run, then those at the same site, then the others, as many as fit."""
    sites = {name: reading.site(found.runs[name]) for name in having}
    here = sites.get(current or "")
    return sorted(having, key=lambda name: (name != current, sites[name] != here, name))[:FIRST]


def _read(runs: Iterable[Run], suite: str) -> dict[str, AnyReport]:
    """The reports by name of their run; a damaged one is a sentence, and the others are shown."""
    reports: dict[str, AnyReport] = {}
    for run in runs:
        try:
            report = reading.report(run, suite)
        except (UserError, OSError) as problem:
            st.caption(f":red[{plain(run.name)} can't be read:] {plain(str(problem))}")
            continue
        if report is None:
            continue
        reports[run.name] = report
        if reading.is_of_earlier_weights(run, report):
            st.caption(
                f":red[{plain(run.name)} was changed after it was evaluated: its numbers are of earlier weights.]"
            )
    return reports


@st.cache_resource(max_entries=PREPARED, show_spinner=False)
def _parts(_reports: Mapping[str, AnyReport], suite: str, key: str) -> list[Part]:
    """What the suite's section shows, but for its heading, which the control above says already."""
    return list(itertools.islice(sections.of_suite(sections.named(_reports)), 1, None))


@st.cache_resource(max_entries=PREPARED, show_spinner=False)
def _settings(_reports: Mapping[str, AnyReport], suite: str, key: str) -> list[Part]:
    """On what and how it was measured, and what every number means."""
    reports = sections.named(_reports)
    return [sections.dictionaries(reports), *sections.settings(reports), *sections.definitions(reports)]


def _example(found: Workspace) -> str:
    run = found.get(state.run_name())
    return str(run.paths.root) if run is not None else "RUN"
