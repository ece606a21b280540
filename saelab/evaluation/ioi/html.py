"""The report as one page that needs nothing else: text, tables, and figures with their library inside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from saelab.evaluation.ioi import figures
from saelab.evaluation.ioi.report import IoiReport, Measured, NodePart, SectionPart

_STYLE: Final = """
body { font: 15px/1.55 system-ui, sans-serif; color: #1b2430; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #dfe3e8; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #edf0f3; text-align: right; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
.faint { color: #5b6675; } .pass { color: #00705a; } .fail { color: #b33c00; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); }
"""
_LATENTS: Final = 5  # of a node that are described


def page(report: IoiReport) -> str:
    """The whole page."""
    body = "\n".join(_parts(report))
    title = f"IOI: {escape(report.about.model)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body><h1>{title}</h1>\n{body}\n</body></html>"
    )


def _parts(report: IoiReport) -> Iterator[str]:
    about, settings = report.about, report.about.settings
    words = ", ".join(f"{kept} of {of} {name}" for name, (kept, of) in about.words.items())
    yield _paragraph(
        f"Supervised dictionaries and sparse autoencoders on indirect object identification (arXiv 2405.08366). "
        f"Fitted to {settings['fit_prompts']:,} prompts of templates {settings['fit_templates']}, judged on "
        f"{settings['test_prompts']:,} of templates {settings['test_templates']}; patches on the first "
        f"{settings['patched_prompts']:,}. Single tokens: {words}. Brackets are 95 % bootstrap intervals over prompts. "
        f"{about.seconds:,.0f} s on {about.device}, {about.created}, saelab {about.saelab_version}."
    )
    if report.published:
        yield "<h2>The paper's numbers and ours</h2>" + _published(report)
    yield "<h2>The model on the task</h2>" + _behaviour(report)
    yield "<h2>The circuit</h2>" + _circuit(report)
    for section in report.sections:
        yield from _section(section)
    if report.occlusion:
        yield "<h2>Occlusion</h2>" + _figure(figures.occlusion(report.occlusion))


def _published(report: IoiReport) -> str:
    rows = [
        [
            escape(row.what), f"{row.published:g}", f"≥ {row.low:.2f}" + (f", ≤ {row.high:.2f}" if row.high else ""),
            _number(row.ours), f'<span class="{row.verdict}">{row.verdict}</span>',
        ]
        for row in report.published
    ]  # fmt: skip
    return _table(["", "published", "accepted", "ours", ""], rows)


def _behaviour(report: IoiReport) -> str:
    rows = [
        [
            f"{row.names} names, " + ("all" if row.template is None else f"template {row.template}, {row.pattern}"),
            f"{row.n:,}",
            _number(row.accuracy), _number(row.prefers_io), _number(row.logit_difference),
        ]
        for row in report.behaviour
    ]  # fmt: skip
    used = report.behaviour[0].names
    said = "Accuracy: the likeliest of all tokens is IO. Places and objects are of the test half. "
    said = _paragraph(f"{said}Everything below uses the {used} names; the others are here to compare.")
    return said + _table(["", "prompts", "accuracy", "IO above S", "logit difference"], rows)


def _circuit(report: IoiReport) -> str:
    circuit, settings = report.circuit, report.about.settings
    said = (
        "Heads as published for GPT-2 small (arXiv 2211.00593)."
        if circuit.source == "published"
        else "Heads found on this model by patching activations of a corrupted prompt (S2 names IO, not S) along "
        f"the path of each role; of a role those with {settings['threshold']:.0%} of the strongest head's effect and "
        f"{settings['floor']:.0%} of the whole way."
    )
    rows = [[escape(role), ", ".join(heads) or "none"] for role, heads in circuit.heads.items()]
    maps = "".join(_figure(figure) for figure in figures.heat_maps(circuit.maps))
    return _paragraph(said) + _table(["role", "heads"], rows) + f'<div class="grid">{maps}</div>'


def _section(section: SectionPart) -> Iterator[str]:
    yield f"<h2>{escape(section.name)}</h2>"
    yield _paragraph(escape(", ".join(section.nodes)))
    rows = [
        [
            part.attribute, _measured(part.no_edit), _number(part.logit_difference),
            "edited below" if part.carried else "hardly passes here: no edits",
        ]
        for part in section.attributes
    ]  # fmt: skip
    yield _table(["true patch of", "answers left as they are", "logit difference", ""], rows)
    yield _figure(figures.decomposition(section.dictionaries, section.name))
    for part in section.attributes:
        if part.carried:
            yield _figure(figures.edits(section, part.attribute)) + _edits(section, part.attribute)
    if any(dictionary.above for dictionary in section.dictionaries):
        yield _figure(figures.f1_distribution(section)) + _figure(figures.above_threshold(section)) + _meanings(section)


def _edits(section: SectionPart, attribute: str) -> str:
    budgets = sorted({edit.k for d in section.dictionaries for c in d.control for edit in c.edits})
    rows = [
        [escape(dictionary.name) + f" ({control.way})", *(_measured(edit.accuracy) for edit in control.edits)]
        for dictionary in section.dictionaries
        for control in dictionary.control
        if control.attribute == attribute
    ]
    return _table([f"edit accuracy, {attribute}", *(f"k = {k}" for k in budgets)], rows)


def _meanings(section: SectionPart) -> str:
    tested = [dictionary for dictionary in section.dictionaries if dictionary.above]
    described = [(dictionary.name, node) for dictionary in tested for node in dictionary.nodes]
    return _table(
        ["dictionary", "node", "active", "L0", "named values", "latents for Pos (F1)", "best latents"],
        [[escape(name), *_described(node)] for name, node in described],
    )


def _described(node: NodePart) -> list[str]:
    best = [f"{latent.latent}: {latent.family} {', '.join(latent.values)}" for latent in node.best[:_LATENTS]]
    return [
        escape(node.node), f"{node.active}", _number(node.l0),
        ", ".join(f"{name} {_number(share)}" for name, share in node.named.items()),
        ", ".join(f"{name} {n} ({_number(node.splitting_f1[name])})" for name, n in node.splitting.items()),
        escape("; ".join(best)),
    ]  # fmt: skip


def _figure(figure: go.Figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><tr>{top}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _paragraph(text: str) -> str:
    return f'<p class="faint">{text}</p>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _measured(part: Measured) -> str:
    return f"{_number(part.value)} <span class=faint>[{_number(part.low)}, {_number(part.high)}]</span>"
