"""Every dictionary under the folders given: what it is, how good it is, and what quality costs in active latents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import streamlit as st

from app import figures, links, reading, state
from app.budget import Budget, mark, warnings
from app.notation import percent, plain, short
from app.problems import NothingToShowError, empty_state
from app.table import Column, Order, Page, table
from app.workspace import Run, Workspace
from saelab.errors import UserError
from saelab.evaluation.report import FidelityMetrics

COLUMNS = (
    Column("name", "Run", "Its folder", is_number=False, largest_first=False, wraps=True),
    Column(
        "architecture",
        "Architecture",
        "How the budget of active latents is spent",
        is_number=False,
        largest_first=False,
    ),
    Column("site", "Site", "Where in the model it reads and writes", is_number=False, largest_first=False),
    Column("d_sae", "Latents", "Size of the dictionary"),
    Column("l0", "L0", "Mean number of active latents per token", largest_first=False),
    Column("fvu", "FVU", "Share of the activations' variance left unexplained", largest_first=False),
    Column("loss_recovered_zero", "Loss recovered", "1 is the clean model, 0 is the site set to zero"),
    Column("delta_ce", "ΔCE", "Next-token loss added, nats per token", largest_first=False),
    Column("dead_fraction", "Dead", "Share of latents that never fired in the evaluation", largest_first=False),
    Column("stage", "Stage", "How far it has come", is_number=False),
)
AMONG = "among"  # in the address: a piece of the names, architectures or sites to show
ROWS = 50
MANY = 8  # runs, from which on a filter is offered
TRADE_OFFS = (("delta_ce", "added loss ΔCE (nats/token)"), ("fvu", "unexplained variance (FVU)"))


@dataclass(frozen=True)
class Entry:
    """A run as a row; a metric that is not known is None."""

    run: Run
    config: dict[str, Any]
    metrics: FidelityMetrics | None
    stage: str

    def value(self, column: str) -> Any:
        """What the column sorts by."""
        if column in ("name", "stage"):
            return self.run.name if column == "name" else self.stage
        if column in ("architecture", "site", "d_sae"):
            return self.config.get(column)
        return getattr(self.metrics, column, None)

    def matches(self, piece: str) -> bool:
        """Whether its name, architecture or site contains `piece`."""
        texts = (self.run.name, self.config.get("architecture", ""), self.config.get("site", ""))
        return any(piece.strip().lower() in str(text).lower() for text in texts)

    @property
    def budget(self) -> Budget | None:
        """What it keeps of what it was trained to keep, where both are known."""
        return Budget.of(self.run, self.config, self.metrics)


def show() -> None:
    """The page."""
    found = state.workspace()
    if not found.runs:
        raise NothingToShowError("No runs here yet", "Make a first dictionary.", "saelab demo")
    st.title("Runs", anchor=False)
    st.caption(f"{len(found.runs):,} under {', '.join(plain(_nearby(folder)) for folder in found.folders)}")
    piece = _among(len(found.runs))
    listed, aside = (list(found.runs.values()), {}) if piece else set_aside(found)
    query = st.query_params.to_dict()
    order = Order.from_address(query, COLUMNS, "name")
    if "order" not in query:
        order = Order(order.column, descending=False)
    entries = [entry for entry in map(read, listed) if entry.matches(piece)]
    if not entries:
        empty_state("No run matches", "No name, architecture or site contains this. Try a shorter piece.")
        return
    page = Page.from_address(query, len(entries), ROWS)
    rows = [_row(entry) for entry in ordered(entries, order)[page.rows]]
    notes = warnings(entry.budget for entry in entries if entry.budget is not None)
    pager = page.pager(links.RUNS, query) if page.total > ROWS else ""
    st.html(table(links.RUNS, COLUMNS, rows, order, query) + pager + _elsewhere(aside) + notes)
    _trade_offs([entry for entry in entries if entry.metrics is not None])


def set_aside(found: Workspace) -> tuple[list[Run], dict[str, int]]:
    """The runs to list, and how many were set aside, by name of the IOI report that they belong to.

    `saelab ioi` makes a dictionary for every node and method, near a hundred, which would bury all others.
    """
    parents = {name: report.parent for name, report in found.judged.items()}
    owner = {
        run.name: name for run in found.runs.values() for name, parent in parents.items()
        if run.paths.root.is_relative_to(parent)
    }  # fmt: skip
    listed = [run for run in found.runs.values() if run.name not in owner]
    if not listed:
        return list(found.runs.values()), {}
    return listed, Counter(owner.values())


def _elsewhere(aside: Mapping[str, int]) -> str:
    """Where the runs are that were set aside."""
    parts = [
        f"{count:,} dictionaries of {links.anchor(escape(name), links.EVALUATIONS, suite='ioi', ioi=name)}, "
        + links.anchor("listed here", links.RUNS, among=name)
        for name, count in aside.items()
    ]
    return f'<p class="sl-said sl-faint">Not in this list: {"; ".join(parts)}.</p>' if parts else ""


def _among(n_runs: int) -> str:
    """What the reader wants to see only; asked for where there are many runs."""
    if n_runs < MANY and AMONG not in st.query_params:
        return ""
    return st.text_input(
        "Show only", key=AMONG, bind="query-params", placeholder="part of a name, an architecture or a site", width=420
    )


def read(run: Run) -> Entry:
    """What is known of a run; a part that can't be read counts as missing, and the stage says so."""
    try:
        config, report = reading.dictionary_config(run), reading.fidelity(run)
    except (UserError, OSError):
        return Entry(run, {}, None, "damaged")
    return Entry(run, config, report.metrics if report is not None else None, _stage(run, report is not None))


def _stage(run: Run, is_evaluated: bool) -> str:
    if run.is_training:
        return "training"
    if not run.has_dictionary:
        return "stopped in training"
    made = [name for name, is_made in (("evaluated", is_evaluated), ("indexed", run.has_index)) if is_made]
    return ", ".join(made) or "trained"


def ordered(entries: Sequence[Entry], order: Order) -> list[Entry]:
    """Sorted by a column, what is not known last."""
    known = [entry for entry in entries if entry.value(order.column) is not None]
    unknown = [entry for entry in entries if entry.value(order.column) is None]
    return sorted(known, key=lambda entry: entry.value(order.column), reverse=order.descending) + unknown


def _row(entry: Entry) -> tuple[str, ...]:
    def text(column: str) -> str:
        return escape(str(entry.config.get(column, "–")))

    def number(column: str, is_share: bool = False) -> str:
        value = entry.value(column)
        return percent(value) if is_share else short(value)

    return (
        links.anchor(escape(entry.run.name), links.OVERVIEW, run=entry.run.name),
        text("architecture"), text("site"), number("d_sae"), number("l0") + mark(entry.budget),
        number("fvu", is_share=True),
        number("loss_recovered_zero", is_share=True), number("delta_ce"), number("dead_fraction", is_share=True),
        entry.stage,
    )  # fmt: skip


def _trade_offs(entries: Sequence[Entry]) -> None:
    """Quality against active latents, a point a run; a click opens it."""
    if len(entries) < 2:
        return
    st.subheader("What quality costs", anchor=False)
    for column, (name, title) in zip(st.columns(len(TRADE_OFFS), gap="large"), TRADE_OFFS, strict=True):
        points = [
            figures.Point(entry.value("l0"), entry.value(name), entry.run.name, entry.config.get("architecture", ""))
            for entry in entries
            if entry.value("l0") is not None and entry.value(name) is not None
        ]
        chosen = column.plotly_chart(
            figures.trade_off(points, title), config=figures.CHART, key=f"against_{name}", on_select="rerun",
            selection_mode="points",
        )  # fmt: skip
        for point in chosen["selection"]["points"]:
            links.go(links.OVERVIEW, run=point["customdata"][0])
    st.caption("Lower left is better. The line joins the runs that no other beats on both counts; a click opens a run.")


def _nearby(folder: Path) -> str:
    """A folder as one would type it from where the app was started."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
