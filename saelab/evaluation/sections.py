"""What a reader is shown of suites' reports, in the app and in HTML pages: tables, figures, definitions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

from saelab.evaluation.figures import density, labels, pareto, slices, steering
from saelab.evaluation.labels.report import LabelsReport
from saelab.evaluation.page import Figure, Grid, Heading, Paragraph, Part, Table
from saelab.evaluation.report import FidelityReport, SparsityReport
from saelab.evaluation.reports import AnyReport
from saelab.evaluation.steering.report import SteeringReport
from saelab.evaluation.tables import side_by_side, unit_of

ReportT = TypeVar("ReportT")

ABREAST: Final = 5  # dictionaries in one table, so that it fits a printed page
FEW: Final = 2  # dictionaries that have a figure of all labels each; more share one


def title(reports: Sequence[AnyReport]) -> str:
    """What the page is about."""
    names = list(dict.fromkeys(report.about.dictionary for report in reports))
    return f"Evaluation of {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def parts(reports: Sequence[AnyReport]) -> Iterator[Part]:
    """Everything about reports of any suites and dictionaries, a section for each suite."""
    yield dictionaries(reports)
    for suite in dict.fromkeys(report.suite for report in reports):
        yield from of_suite([report for report in reports if report.suite == suite])
    yield from settings(reports)
    yield from definitions(reports)


def dictionaries(reports: Sequence[AnyReport]) -> Table:
    """What was measured: every dictionary, where it lies in the model and by which rule it encodes."""
    known = {report.about.dictionary: report.about for report in reports}
    rows = [
        [
            name, about.architecture, " → ".join([about.site, *filter(None, [" + ".join(about.targets)])]),
            f"{about.d_in:,}", f"{about.d_sae:,}", "–" if about.k is None else str(about.k), about.selection_rule,
            (about.dictionary_sha256 or "not saved")[:12],
        ]
        for name, about in known.items()
    ]  # fmt: skip
    head = ["dictionary", "architecture", "site", "width", "latents", "k", "selection", "sha256 (start)"]
    about = reports[0].about
    measured = f"Measured {about.created} on {about.device} with saelab {about.saelab_version}."
    model = f"Model: {about.model}, fingerprint {about.model_fingerprint[:12]}, in {about.dtype}."
    return Table(head, rows, "Dictionaries", [f"{model} {measured}"], words=[1, 2, 6, 7])


def named(reports: Mapping[str, AnyReport]) -> list[AnyReport]:
    """The reports under other names than those of their runs' folders, which need not be unique."""
    return [
        report.model_copy(update={"about": report.about.model_copy(update={"dictionary": name})})
        for name, report in reports.items()
    ]


def of_suite(reports: Sequence[AnyReport], with_curves: bool = True) -> Iterator[Part]:
    """One suite: heading, table, figures.

    Args:
        reports: at least one, all of the same suite.
        with_curves: whether L0 is drawn against the damage, where there are several.
    """
    yield Heading(reports[0].suite.capitalize())
    for first in range(0, len(reports), ABREAST):
        yield side_by_side(reports[first : first + ABREAST])
    if fidelity := _of(reports, FidelityReport):
        yield from _fidelity(fidelity, with_curves)
    if sparsity := _of(reports, SparsityReport):
        histogram, ranks = density.density_histogram(sparsity), density.rank_density(sparsity)
        yield Grid([Figure(histogram), Figure(ranks, "Points: bin edges of the histogram, where the rank is exact.")])
    if labelled := _of(reports, LabelsReport):
        yield Figure(labels.means(labelled), "Bars: 95 % bootstrap intervals over the documents judged on.")
        if len(labelled) > FEW:
            yield Figure(labels.across(labelled))
        else:
            yield from (Figure(labels.by_label(report)) for report in labelled)
    if steered := _of(reports, SteeringReport):
        yield from _steering(steered)


def definitions(reports: Sequence[AnyReport]) -> Iterator[Part]:
    """What every number in the tables means."""
    yield Heading("Definitions")
    yield Paragraph("Formulas, and which positions count: docs/metrics.md of saelab, by the name in the first column.")
    for report in {report.suite: report for report in reports}.values():
        metrics = type(report.metrics)
        rows = [
            [name, field.title or name, field.description or "", unit_of(metrics, name)]
            for name, field in metrics.model_fields.items()
        ]
        yield Table(["name", "title", "definition", "unit"], rows, report.suite.capitalize(), words=[1, 2, 3])


def settings(reports: Sequence[AnyReport]) -> Iterator[Part]:
    """The text, the token policy and the settings of each suite, to the letter: what would make the numbers again."""
    yield Heading("Settings")
    rows: dict[str, list[str]] = {}
    for report in reports:
        about = report.about
        stated = {"corpus": about.corpus, "token policy": about.token_policy, f"{report.suite}": about.settings}
        for name, value in stated.items():
            text = "not recorded" if value is None else ", ".join(f"{key}: {_plain(of)}" for key, of in value.items())
            rows.setdefault(f"{name} {text}", [name, text])
    yield Table(["", "settings"], list(rows.values()), words=[1])


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace('"', "")


def _fidelity(reports: Sequence[FidelityReport], with_curves: bool) -> Iterator[Part]:
    if with_curves and len(reports) > 1:
        costs = [pareto.fidelity(reports, number) for number in ("delta_ce", "fvu")]
        yield Grid([Figure(figure) for figure in costs])
        yield Paragraph(
            "Bars: 95 % bootstrap intervals over documents. Further down is better; lines join one architecture.",
            "faint",
        )
    if any(report.by_position for report in reports):
        yield Figure(slices.by_position(reports), "Predictions made at these positions. Bars: 95 % over documents.")
    if any(report.by_label for report in reports):
        caption = "Predictions of tokens that have the label; a token may have several. Bars: 95 % over documents."
        yield Figure(slices.by_label(reports), caption)


def _steering(reports: Sequence[SteeringReport]) -> Iterator[Part]:
    yield Grid([Figure(steering.quantiles(reports, measure)) for measure in ("kl", "gain", "harm")])
    yield Paragraph(
        "Boxes: 25, 50 and 75 % of the directions; whiskers: 10 and 90 %; dashed: the mean. All directions have one "
        "length; latents beside differences of means and random directions.",
        "faint",
    )
    yield from (Figure(steering.targets(report)) for report in reports if report.targets)


def _of(reports: Sequence[AnyReport], kind: type[ReportT]) -> list[ReportT]:
    return [report for report in reports if isinstance(report, kind)]
