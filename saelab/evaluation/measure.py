"""The pass: clean batches of text go by once, every suite of every dictionary looks at each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.corpora import TokenRows
from saelab.corpora.microworld.labels import LABELS
from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.conditions import Extent, Text, provenance
from saelab.evaluation.config import Suite
from saelab.evaluation.fidelity import Fidelity
from saelab.evaluation.labels.material import LabelledTokens
from saelab.evaluation.labels.suite import Labels
from saelab.evaluation.reports import AnyReport
from saelab.evaluation.sparsity import Sparsity
from saelab.evaluation.steering.config import SteeringConfig
from saelab.evaluation.steering.material import SteeringText
from saelab.evaluation.steering.shared import Baselines
from saelab.evaluation.steering.suite import Steering
from saelab.evaluation.suites import Documented, Reader
from saelab.evaluation.sums import RunningMean
from saelab.models import LanguageModel, Site
from saelab.progress import track
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
) -> list[Measured]:
    """Evaluate any number of dictionaries, each at a site of its own, on one pass over `rows`.

    Args:
        rows: held-out rows of tokens in the size in which they go through the model; `keep` decides what counts.
        mean_tokens: the rows up to this many kept tokens are read ahead, to estimate the mean that ablates.
        seed: of the bootstrap, and of what the steering suite draws.

    Returns:
        One for each dictionary and suite, dictionaries in the order given, suites inside.

    Raises:
        UserError: a site does not fit the model, no position is kept, or activations are not finite.
    """
    for subject in subjects:
        check_fit(subject.name, subject.dictionary.config, subject.site, model)
        if "fidelity" in suites:
            check_order(subject)
    text = text or Text()
    started = time.monotonic()
    sites = sorted({site for subject in subjects for site in (subject.site, *subject.writes)})
    rows, means = read_ahead(model, rows, sites, mean_tokens)
    labelled = None if text.labels is None else LabelledTokens(tuple(LABELS))
    baselines = Baselines(SteeringText(tuple(LABELS), steering or SteeringConfig(), seed))
    readers = [
        (s, _reader(suite, s, means, labelled, baselines, resamples, seed)) for s in subjects for suite in suites
    ]
    with_output = any(reader.needs_output for _, reader in readers)
    extent = Extent()
    with track(text.positions, "evaluate") as bar:
        for chunk in rows:
            batch = CleanBatch(model, chunk, sites, with_output, text.labels)
            extent.add(batch)
            for _, reader in readers:
                reader.see(batch)
            bar.advance(batch.ids.numel())
    seconds = time.monotonic() - started
    return [
        Measured(
            reader.report(provenance(subject, model, extent, means[subject.site].n, seed, seconds, text)),
            reader.documents() if isinstance(reader, Documented) else None,
        )
        for subject, reader in readers
    ]


def read_ahead(
    model: LanguageModel, rows: Iterable[TokenRows], sites: Sequence[Site], mean_tokens: int
) -> tuple[Iterator[TokenRows], dict[Site, RunningMean]]:
    """Mean activation at each site over the first chunks, and all rows again (those chunks included)."""
    means = {site: RunningMean(model.width(site)) for site in sites}
    iterator, ahead, seen = iter(rows), [], 0
    while seen < mean_tokens and (chunk := next(iterator, None)) is not None:
        ahead.append(chunk)
        kept = chunk.keep.sum(1).cumsum(0)
        enough = int((seen + kept < mean_tokens).sum()) + 1  # rows, so that the mean does not depend on chunk sizes
        keep = chunk.keep[:enough].to(model.device)
        seen += int(keep.sum())
        for site, x in model.activations(chunk.ids[:enough].to(model.device, torch.int64), sites).items():
            means[site].add(x[keep])
    if seen == 0:
        raise UserError("there is no token to evaluate on: the text is empty, or the token policy excludes all of it")
    return chain(ahead, iterator), means


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


def _reader(
    suite: Suite,
    subject: Subject,
    means: Mapping[Site, RunningMean],
    labelled: LabelledTokens | None,
    baselines: Baselines,
    resamples: int,
    seed: int,
) -> Reader:
    match suite:
        case "fidelity":
            ablation: Float[Tensor, "d_out"] = torch.cat([means[site].mean for site in subject.writes])
            return Fidelity(subject, ablation, resamples, seed)
        case "sparsity":
            return Sparsity(subject)
        case "labels":
            if labelled is None:
                raise UserError("the labels suite needs text with labels: --corpus.source microworld or ioi")
            return Labels(subject, labelled, resamples, seed)
        case "steering":
            return Steering(subject, baselines, resamples, seed)
