"""The report as parts of a page: text, tables and figures, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from saelab.evaluation import page
from saelab.evaluation.ioi import figures
from saelab.evaluation.ioi.report import AttributePart, IoiReport, Measured, NodePart, PublishedPart, SectionPart
from saelab.evaluation.page import Cell, Figure, Grid, Heading, Paragraph, Part, Table

_LATENTS: Final = 5  # of a node that are described
_MARKS: Final[dict[str, page.Mark]] = {"pass": "good", "fail": "bad", "not measured": "faint"}


def html(report: IoiReport) -> str:
    """The whole page."""
    return page.html(title(report), parts(report))


def title(report: IoiReport) -> str:
    """What the page is about."""
    return f"IOI: {report.about.model}"


def parts(report: IoiReport) -> Iterator[Part]:
    """All of it, in order."""
    yield conditions(report)
    if report.published:
        yield from published(report)
    yield from behaviour(report)
    yield from circuit(report)
    for part in report.sections:
        yield from section(part)
    yield from occlusion(report)


def conditions(report: IoiReport) -> Paragraph:
    """On what everything was measured."""
    about, settings = report.about, report.about.settings
    words = ", ".join(f"{kept} of {of} {name}" for name, (kept, of) in about.words.items())
    return Paragraph(
        f"Supervised dictionaries and sparse autoencoders on indirect object identification (arXiv 2405.08366). "
        f"Fitted to {settings['fit_prompts']:,} prompts of templates {settings['fit_templates']}, judged on "
        f"{settings['test_prompts']:,} of templates {settings['test_templates']}; patches on the first "
        f"{settings['patched_prompts']:,}. Single tokens: {words}. Brackets are 95 % bootstrap intervals over prompts. "
        f"{about.seconds:,.0f} s on {about.device}, {about.created}, saelab {about.saelab_version}.",
        mark="faint",
    )


def published(report: IoiReport) -> Iterator[Part]:
    """The paper's numbers; only where the model is the paper's."""
    yield Heading("The paper's numbers and ours")
    yield Table(["", "published", "accepted", "ours", ""], [_beside(row) for row in report.published])


def behaviour(report: IoiReport) -> Iterator[Part]:
    """The untouched model's answers."""
    yield Heading("The model on the task")
    used = report.behaviour[0].names
    yield Paragraph(
        "Accuracy: the likeliest of all tokens is IO. Places and objects are of the test half. "
        f"Everything below uses the {used} names; the others are here to compare.",
        mark="faint",
    )
    rows = [
        [
            f"{row.names} names, " + ("all" if row.template is None else f"template {row.template}, {row.pattern}"),
            f"{row.n:,}",
            _number(row.accuracy), _number(row.prefers_io), _number(row.logit_difference),
        ]
        for row in report.behaviour
    ]  # fmt: skip
    yield Table(["", "prompts", "accuracy", "IO above S", "logit difference"], rows)


def circuit(report: IoiReport) -> Iterator[Part]:
    """Which heads do the task, and how they were found."""
    found, settings = report.circuit, report.about.settings
    yield Heading("The circuit")
    yield Paragraph(
        "Heads as published for GPT-2 small (arXiv 2211.00593)."
        if found.source == "published"
        else "Heads found on this model by patching activations of a corrupted prompt (S2 names IO, not S) along "
        f"the path of each role; of a role those with {settings['threshold']:.0%} of the strongest head's effect and "
        f"{settings['floor']:.0%} of the whole way.",
        mark="faint",
    )
    rows = [[role, ", ".join(heads) or "none"] for role, heads in found.heads.items()]
    yield Table(["role", "heads"], rows, words=[1])
    if found.maps:
        yield Grid([Figure(figure) for figure in figures.heat_maps(found.maps)])


def section(part: SectionPart) -> Iterator[Part]:
    """One cross-section: how well dictionaries stand in for it, control it, and can be read."""
    yield Heading(part.name)
    yield Paragraph(", ".join(part.nodes), mark="faint")
    head = ["true patch of", "answers left as they are", "logit difference", ""]
    yield Table(head, [_true_patch(attribute) for attribute in part.attributes])
    yield Figure(figures.decomposition(part.dictionaries, part.name))
    rows = [
        [d.name, _measured(d.sufficiency), _measured(d.necessity), _number(figures.explained(d))]
        for d in part.dictionaries
    ]
    yield Table(["dictionary", "sufficiency", "necessity", "variance explained (mean over nodes)"], rows)
    for attribute in part.attributes:
        if attribute.carried:
            yield Figure(figures.edits(part, attribute.attribute))
            yield _edits(part, attribute.attribute)
    if any(dictionary.above for dictionary in part.dictionaries):
        yield Figure(figures.f1_distribution(part))
        yield Figure(figures.above_threshold(part))
        yield _meanings(part)


def occlusion(report: IoiReport) -> Iterator[Part]:
    """How far one attribute hides another, where dictionaries were trained to find out."""
    if report.occlusion:
        yield Heading("Occlusion")
        yield Figure(figures.occlusion(report.occlusion))


def _beside(row: PublishedPart) -> list[Cell | str]:
    accepted = f"≥ {row.low:.2f}" + (f", ≤ {row.high:.2f}" if row.high else "")
    return [row.what, f"{row.published:g}", accepted, _number(row.ours), Cell(row.verdict, mark=_MARKS[row.verdict])]


def _true_patch(part: AttributePart) -> list[Cell | str]:
    edited = "edited below" if part.carried else "hardly passes here: no edits"
    return [part.attribute, _measured(part.no_edit), _number(part.logit_difference), edited]


def _edits(section: SectionPart, attribute: str) -> Table:
    budgets = sorted({edit.k for d in section.dictionaries for c in d.control for edit in c.edits})
    rows = [
        [f"{dictionary.name} ({control.way})", *(_measured(edit.accuracy) for edit in control.edits)]
        for dictionary in section.dictionaries
        for control in dictionary.control
        if control.attribute == attribute
    ]
    return Table([f"edit accuracy, {attribute}", *(f"k = {k}" for k in budgets)], rows)


def _meanings(section: SectionPart) -> Table:
    tested = [dictionary for dictionary in section.dictionaries if dictionary.above]
    described = [(dictionary.name, node) for dictionary in tested for node in dictionary.nodes]
    return Table(
        ["dictionary", "node", "active", "L0", "named values", "latents for Pos (F1)", "best latents"],
        [[name, *_described(node)] for name, node in described],
        words=[1, 4, 5, 6],
    )


def _described(node: NodePart) -> list[str]:
    best = [f"{latent.latent}: {latent.family} {', '.join(latent.values)}" for latent in node.best[:_LATENTS]]
    return [
        node.node, f"{node.active}", _number(node.l0),
        ", ".join(f"{name} {_number(share)}" for name, share in node.named.items()),
        ", ".join(f"{name} {n} ({_number(node.splitting_f1[name])})" for name, n in node.splitting.items()),
        "; ".join(best),
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _measured(part: Measured) -> Cell:
    return Cell(_number(part.value), f"[{_number(part.low)}, {_number(part.high)}]")
