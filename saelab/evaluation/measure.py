"""The pass: clean batches of text go by once, every suite of every dictionary measures each.

Ranks take the batches in turns; the first one adds up what they came to, in the order of the text, and reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.corpora.microworld.labels import LABELS
from saelab.errors import UserError
from saelab.evaluation.ahead import Ahead, Unread, read_ahead
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.conditions import Extent, Text, provenance
from saelab.evaluation.config import Suite
from saelab.evaluation.fidelity import Fidelity
from saelab.evaluation.found import nested, part
from saelab.evaluation.labels.material import LabelledTokens
from saelab.evaluation.labels.suite import Labels
from saelab.evaluation.reports import AnyReport
from saelab.evaluation.shown import shown
from saelab.evaluation.sparsity import Sparsity
from saelab.evaluation.steering.config import SteeringConfig
from saelab.evaluation.steering.material import SteeringText
from saelab.evaluation.steering.shared import Baselines
from saelab.evaluation.steering.suite import Steering
from saelab.evaluation.suites import Documented, Reader, Summed
from saelab.models import LanguageModel
from saelab.ranks.mesh import Mesh
from saelab.ranks.turns import in_turns
from saelab.training.origin import check_fit, written_before_read


@dataclass(frozen=True)
class Measured:
    """One suite's findings on one dictionary."""

    report: AnyReport
    documents: Mapping[str, Tensor] | None
    """The sums behind its numbers, document by document; None from a suite that keeps none."""


def measure(
    model: LanguageModel,
    subjects: Sequence[Subject],
    rows: Iterable[TokenRows],
    suites: Sequence[Suite] = ("fidelity", "sparsity"),
    **options: Any,
) -> list[AnyReport]:
    """The reports of `measured`, which has the same arguments, without the sums behind them."""
    return [found.report for found in measured(model, subjects, rows, suites, **options)]


@torch.no_grad()
def measured(
    model: LanguageModel,
    subjects: Sequence[Subject],
    rows: Iterable[TokenRows],
    suites: Sequence[Suite] = ("fidelity", "sparsity"),
    *,
    mean_tokens: int = 10_000,
    resamples: int = 1000,
    seed: int = 0,
    text: Text | None = None,
    steering: SteeringConfig | None = None,
    mesh: Mesh | None = None,
) -> Iterator[Measured]:
    """Evaluate any number of dictionaries, each at a site of its own, on one pass over `rows`.

    Args:
        rows: held-out rows of tokens in the size in which they go through the model; `keep` decides what counts.
        mean_tokens: the rows up to this many kept tokens are read ahead, to estimate the mean that ablates.
        seed: of the bootstrap, and of what the steering suite draws.
        mesh: the ranks that share the work. All call this with the same arguments, and run through what it returns.

    Returns:
        One for each dictionary and suite, dictionaries in the order given, suites inside, each as soon as it is there;
        nothing on ranks other than the first.

    Raises:
        UserError: a site does not fit the model, no position is kept, or activations are not finite.
    """
    for subject in subjects:
        check_fit(subject.name, subject.dictionary.config, subject.site, model)
        if "fidelity" in suites:
            check_order(subject)
    text, mesh, started = text or Text(), mesh or Mesh(), time.monotonic()
    sites = sorted({site for subject in subjects for site in (subject.site, *subject.writes)})
    ahead = read_ahead(model, rows, sites, mean_tokens, text, mesh.world)
    steered = SteeringText(tuple(LABELS), steering or SteeringConfig(), seed, dict.fromkeys(s.writes for s in subjects))
    labelled = LabelledTokens(text.names, dict.fromkeys(s.site for s in subjects))
    common = _Common(ahead, labelled, Baselines(steered, model, mesh.world))
    readers = [(s, _reader(suite, s, common, text.names, resamples, seed)) for s in subjects for suite in suites]
    extent = Extent()
    parts: dict[str, Summed] = {"extent": extent}
    parts |= {"labelled": labelled} if "labels" in suites else {}
    parts |= {"steered": steered} if "steering" in suites else {}
    parts |= {f"reader {number}": reader for number, (_, reader) in enumerate(readers)}
    with_output = any(reader.needs_output for _, reader in readers)

    def work(unread: Unread) -> dict[str, Tensor]:
        batch = CleanBatch(model, unread(), sites, with_output, text.labels)
        return nested({key: one.measure(batch) for key, one in parts.items()})

    _take_in(parts, ahead.rows, work, mesh, text.positions)
    seconds = time.monotonic() - started
    for subject, reader in readers:
        mesh.ranks.gather("report")  # the others wait here for what the first rank did alone, not in torch's exchanges
        if mesh.ranks.first or reader.everywhere:
            n = ahead.means[subject.site].n
            report = reader.report(provenance(subject, model, extent, n, seed, seconds, text))
            if mesh.ranks.first:
                yield Measured(report, reader.documents() if isinstance(reader, Documented) else None)


def _take_in(
    parts: Mapping[str, Summed],
    rows: Iterator[Unread],
    work: Callable[[Unread], dict[str, Tensor]],
    mesh: Mesh,
    positions: int | None,
) -> None:
    """All rows, in turns; what they come to is taken in by the first rank, or by all that share work afterwards."""
    everywhere = any(one.everywhere for one in parts.values())
    with shown(mesh.world, positions, "evaluate") as bar:
        for found in in_turns(mesh.world, rows, work, "measurements", everywhere):
            for key, one in parts.items():
                if mesh.ranks.first or one.everywhere:
                    one.take(part(found, key))
            bar.advance(int(found["extent/positions"]))


def check_order(subject: Subject) -> None:
    """A reconstruction can take the place only of what the model computes from x on.

    Raises:
        UserError: a target comes before the site that the dictionary reads.
    """
    early = written_before_read(subject.dictionary.config)
    if early is not None:
        raise UserError(
            f"{subject.name} reads {subject.site} and writes {early}, which the model computes before it, so its "
            "fidelity can't be measured by substitution; ask for --suites sparsity"
        )


@dataclass(frozen=True)
class _Common:
    """What all dictionaries of a pass share."""

    ahead: Ahead
    labelled: LabelledTokens
    baselines: Baselines


def _reader(
    suite: Suite, subject: Subject, common: _Common, labels: Sequence[str], resamples: int, seed: int
) -> Reader:
    match suite:
        case "fidelity":
            means = [common.ahead.means[site].mean for site in subject.writes]
            ablation: Float[Tensor, "d_out"] = torch.cat(means)
            return Fidelity(subject, ablation, common.ahead.context, labels, resamples, seed)
        case "sparsity":
            return Sparsity(subject)
        case "labels":
            if not labels:
                raise UserError("the labels suite needs text with labels: --corpus.source microworld or ioi")
            return Labels(subject, common.labelled, resamples, seed)
        case "steering":
            return Steering(subject, common.baselines, resamples, seed)
