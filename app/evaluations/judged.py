"""The judgement against the truth (IOI): which reports there are, and one of them, part by part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app import reading
from app.evaluations import parts
from app.problems import empty_state
from app.workspace import IOI, Run, Workspace
from saelab.evaluation.ioi import html
from saelab.evaluation.ioi.report import IoiReport

REPORT, PART = "ioi", "part"  # in the address
TASK = "task and circuit"


@dataclass(frozen=True)
class Judgement:
    """A report; the runs that it was written to hold the same bytes."""

    name: str
    path: Path


def show(found: Workspace) -> None:
    """The report in the address and its part in the address, behind the controls that change them."""
    judgements = {judgement.name: judgement for judgement in all_of(found)}
    if not judgements:
        empty_state(
            "Nothing judged yet",
            "The task whose answer is known shows how far a dictionary can be trusted. Supervised dictionaries and "
            "baselines of the bundled model take a few minutes; your own dictionaries are judged by "
            "`saelab evaluate RUN --suite ioi`.",
            "saelab ioi demo",
        )
        return
    left, right = st.columns([1, 2], gap="large", vertical_alignment="bottom")
    with left:
        name = _control("Report", list(judgements), REPORT)
    report = reading.ioi(judgements[name].path)
    with right:
        part = _control("Part", [TASK, *(section.name for section in report.sections)], PART)
    parts.show(_parts(report, part), f"{name} {part}")


def _parts(report: IoiReport, part: str) -> Iterable[html.Part]:
    if part != TASK:
        return html.section(next(section for section in report.sections if section.name == part))
    published = html.published(report) if report.published else ()
    return (
        html.conditions(report), *published, *html.behaviour(report), *html.circuit(report), *html.occlusion(report)
    )  # fmt: skip


def all_of(found: Workspace) -> list[Judgement]:
    """Those that `saelab ioi` made, then those of runs; dictionaries judged together have one."""
    made = [Judgement(name, path) for name, path in found.judged.items()]
    together: dict[str, list[Run]] = {}
    for run in found.runs.values():
        path = run.paths.report(IOI)
        if path.is_file():
            together.setdefault(_digest(str(path), reading.stamp(path)), []).append(run)
    return made + [Judgement(_named(runs), runs[0].paths.report(IOI)) for runs in together.values()]


def _named(runs: list[Run]) -> str:
    others = len(runs) - 1
    return runs[0].name + (f" and {others} more" if others else "")


@st.cache_resource(max_entries=512, show_spinner=False)
def _digest(path: str, stamp: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _control(label: str, options: list[str], name: str) -> str:
    """One of `options`, named in the address; as a list to open, because names of runs are long."""
    key, named = f"judged_{name}", st.query_params.get(name)
    st.session_state[key] = named if named in options else options[0]
    return st.selectbox(label, options, key=key, on_change=_keep, args=(name,))


def _keep(name: str) -> None:
    st.query_params[name] = st.session_state[f"judged_{name}"]
