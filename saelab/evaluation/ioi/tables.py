"""The report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from saelab.evaluation.ioi.report import DictionaryPart, IoiReport, SectionPart

SHOWN = (2, 4, 8, 32)
"""Budgets that fit a terminal; the page has all."""
_NAME, _NUMBER = 12, 5  # least widths: a long name is folded, a number never cut
VERDICTS = {"pass": "green", "fail": "bold red", "not measured": "dim"}


def tables(report: IoiReport) -> Iterator[Table]:
    """The model's answers, a table for each cross-section, and the paper's numbers where they apply."""
    yield _behaviour(report)
    yield _circuit(report)
    for section in report.sections:
        yield _section(section)
    if report.published:
        yield _published(report)


def _behaviour(report: IoiReport) -> Table:
    words = ", ".join(f"{kept} of {of} {name}" for name, (kept, of) in report.about.words.items())
    table = Table(title=f"{report.about.model} on the task", caption=f"single tokens: {words}", caption_justify="left")
    for column in ("prompts", "n", "accuracy", "IO above S", "logit difference"):
        table.add_column(column, justify="left" if column == "prompts" else "right")
    for row in report.behaviour:
        name = "all" if row.template is None else f"template {row.template}, {row.pattern}"
        name = f"{row.names} names, {name}"
        table.add_row(name, f"{row.n:,}", _number(row.accuracy), _number(row.prefers_io), _number(row.logit_difference))
    return table


def _circuit(report: IoiReport) -> Table:
    table = Table(title=f"Circuit, {report.circuit.source}")
    table.add_column("role")
    table.add_column("heads", overflow="fold")
    for role, heads in report.circuit.heads.items():
        table.add_row(role, ", ".join(heads) or "none")
    return table


def _section(section: SectionPart) -> Table:
    carried = [part for part in section.attributes if part.carried]
    measured = {edit.k for d in section.dictionaries for c in d.control for edit in c.edits}
    budgets = [k for k in SHOWN if k in measured] or sorted(measured)
    notes = [
        f"{part.attribute}: the true patch leaves {_number(part.no_edit.value)} of answers as they are"
        + ("" if part.carried else ", so it is not edited")
        for part in section.attributes
    ]
    caption = "\n".join([f"{len(section.nodes)} nodes; edit accuracy by attribute and latents edited", *notes])
    table = Table(title=section.name, caption=caption, caption_justify="left")
    table.add_column("", min_width=_NAME)
    for column in ("suff.", "nec."):
        table.add_column(column, justify="right", no_wrap=True, min_width=_NUMBER)
    for part in carried:
        for k in budgets:
            table.add_column(f"{part.attribute} {k}", justify="right", no_wrap=True, min_width=_NUMBER)
    for dictionary in section.dictionaries:
        edits = [_edit(dictionary, part.attribute, k) for part in carried for k in budgets]
        table.add_row(
            dictionary.name, _number(dictionary.sufficiency.value), _number(dictionary.necessity.value), *edits
        )
    return table


def _edit(dictionary: DictionaryPart, attribute: str, k: int) -> str:
    """Edit accuracy; guided edits stand in the page alone."""
    for control in dictionary.control:
        if control.attribute == attribute and control.way != "guided":
            return next((_number(edit.accuracy.value) for edit in control.edits if edit.k == k), "–")
    return "–"


def _published(report: IoiReport) -> Table:
    table = Table(title="The paper's numbers and ours")
    for column in ("", "published", "accepted", "ours", "verdict"):
        table.add_column(column, justify="right" if column else "left")
    for row in report.published:
        accepted = f"≥ {row.low:.2f}" + (f", ≤ {row.high:.2f}" if row.high is not None else "")
        verdict = f"[{VERDICTS[row.verdict]}]{row.verdict}[/]"
        table.add_row(row.what, f"{row.published:g}", accepted, _number(row.ours), verdict)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
