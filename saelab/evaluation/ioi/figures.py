"""Plotly figures of the suite's report: parts of the report in, a `Figure` out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import plotly.graph_objects as go

from saelab.evaluation.figures.style import COLOURS, GREY, colour, error_bars, label, laid_out
from saelab.evaluation.ioi.report import DictionaryPart, HeatMap, OcclusionPart, SectionPart, Way

if TYPE_CHECKING:
    from saelab.evaluation.ioi.task import Attribute

DASHES: Final[dict[Way, str]] = {"supervised": "solid", "agnostic": "solid", "guided": "dot"}
LIMIT: Final = 1.5  # of a magnitude: rare activations near the bias have huge ones


def heat_maps(parts: Sequence[HeatMap]) -> list[go.Figure]:
    """The scores of every head, on one scale."""
    values = [abs(value) for part in parts for row in part.values for value in row if value is not None]
    return [heat_map(part, max(values, default=1.0)) for part in parts]


def heat_map(part: HeatMap, largest: float) -> go.Figure:
    """A score of every head, layers downwards; colours go from -largest to largest."""
    cells = go.Heatmap(
        z=part.values, zmin=-largest, zmax=largest, colorscale="RdBu_r", xgap=1, ygap=1, colorbar={"thickness": 10},
        hovertemplate="head %{y}.%{x}<br>%{z:.3f}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(cells)
    figure.update_xaxes(title="head", dtick=1)
    figure.update_yaxes(title="layer", dtick=1, autorange="reversed")
    return laid_out(figure, part.title, 160 + 24 * len(part.values))


def edits(section: SectionPart, attribute: Attribute) -> go.Figure:
    """Edit accuracy against edit magnitude, a line for each dictionary, a point for each budget."""
    figure = go.Figure()
    for number, dictionary in enumerate(section.dictionaries):  # a family keeps its colour in all figures
        for control in dictionary.control:
            if control.attribute != attribute:
                continue
            shown = control.edits[-1:] if control.way == "supervised" else control.edits
            figure.add_scatter(
                x=[min(edit.magnitude.value or 0.0, LIMIT) for edit in shown],
                y=[edit.accuracy.value for edit in shown],
                error_y=error_bars((edit.accuracy.value, edit.accuracy.low, edit.accuracy.high) for edit in shown),
                text=[f"k = {edit.k}" for edit in shown], mode="lines+markers",
                name=label(dictionary.name) + (", guided" if control.way == "guided" else ""),
                line={"color": colour(number), "dash": DASHES[control.way]},
                marker={"size": 11 if control.way == "supervised" else 6, "symbol": _symbol(control.way)},
                hovertemplate="%{text}: accuracy %{y:.3f}, magnitude %{x:.2f}<extra>%{fullData.name}</extra>",
            )  # fmt: skip
    no_edit = next(part.no_edit.value for part in section.attributes if part.attribute == attribute)
    figure.add_hline(y=no_edit, line={"dash": "dash", "color": GREY}, annotation_text="no edit")
    figure.update_xaxes(title="edit magnitude: removed share of the activation")
    figure.update_yaxes(title="edit accuracy", range=[0, 1.03])
    return laid_out(figure, f"Edits of {attribute} in {section.name}", 460)


def f1_distribution(section: SectionPart) -> go.Figure:
    """Active latents by their best F1, all nodes together."""
    figure = go.Figure()
    for number, dictionary in enumerate(section.dictionaries):
        if not dictionary.above:
            continue
        counts = [sum(column) for column in zip(*(node.f1_histogram for node in dictionary.nodes), strict=True)]
        middles = [(place + 0.5) / len(counts) for place in range(len(counts))]
        figure.add_scatter(
            x=middles,
            y=counts,
            mode="lines",
            line={"shape": "hvh", "color": colour(number)},
            name=label(dictionary.name),
        )
    figure.update_xaxes(title="best F1 over all properties", range=[0, 1])
    figure.update_yaxes(title="active latents")
    return laid_out(figure, f"F1 of latents in {section.name}", 360)


def above_threshold(section: SectionPart) -> go.Figure:
    """Sufficiency of the latents that a property describes at least so well."""
    figure = go.Figure()
    for number, dictionary in enumerate(section.dictionaries):
        if dictionary.above:
            figure.add_scatter(
                x=[part.threshold for part in dictionary.above],
                y=[part.sufficiency.value for part in dictionary.above],
                text=[f"{part.latents} latents" for part in dictionary.above], mode="lines+markers",
                line={"color": colour(number)}, name=label(dictionary.name),
                hovertemplate="F1 ≥ %{x}: %{y:.3f}, %{text}<extra>%{fullData.name}</extra>",
            )  # fmt: skip
    figure.update_xaxes(title="latents with F1 of at least")
    figure.update_yaxes(title="sufficiency of these alone")
    return laid_out(figure, f"Interpretable latents at work in {section.name}", 360)


def decomposition(dictionaries: Sequence[DictionaryPart], name: str) -> go.Figure:
    """How far the parts stand in for the whole: sufficiency, necessity, and the variance that is explained."""
    rows = {
        "sufficiency": [part.sufficiency.value for part in dictionaries],
        "necessity": [part.necessity.value for part in dictionaries],
        "variance explained (mean over nodes)": [explained(part) for part in dictionaries],
    }
    names = [label(part.name) for part in dictionaries]
    bars = [
        go.Bar(name=title, y=names, x=values, orientation="h", marker={"color": COLOURS[number]})
        for number, (title, values) in enumerate(rows.items())
    ]
    figure = go.Figure(bars)
    figure.update_xaxes(range=[0, 1.1])
    figure.update_yaxes(autorange="reversed")
    return laid_out(figure, f"Decompositions in {name}", 180 + 44 * len(names))


def occlusion(parts: Sequence[OcclusionPart]) -> go.Figure:
    """Shares of values with a latent of their own, as IO is taken out."""
    figure = go.Figure()
    for number, attribute in enumerate(("IO", "S", "Pos")):
        figure.add_scatter(
            x=[part.alpha for part in parts], y=[part.named[attribute] for part in parts], mode="lines+markers",
            line={"color": COLOURS[number]}, name=attribute,
        )  # fmt: skip
    figure.update_xaxes(title="α, the share of u_IO that was subtracted")
    figure.update_yaxes(title="values with a latent of F1 > 0.5", range=[0, 1.03])
    return laid_out(figure, f"Occlusion: {parts[0].architecture} trained at {parts[0].node}", 360)


def explained(part: DictionaryPart) -> float:
    """Share of the variance that a decomposition explains, mean over its nodes."""
    return sum(1 - (node.fvu or 0.0) for node in part.nodes) / max(len(part.nodes), 1)


def _symbol(way: Way) -> str:
    return "star" if way == "supervised" else "circle" if way == "agnostic" else "diamond"
