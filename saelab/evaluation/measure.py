"""The pass: clean batches of text go by once, every suite of every dictionary looks at each."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import saelab
from saelab.corpora import TokenRows
from saelab.corpora.microworld.labels import LABELS
from saelab.dictionaries.config import Budgeted, DictionaryConfig, GroupChoice
from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.evaluation.config import Suite
from saelab.evaluation.fidelity import Fidelity
from saelab.evaluation.labels.material import LabelledTokens, LabelRows
from saelab.evaluation.labels.suite import Labels
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.reports import AnyReport
from saelab.evaluation.sparsity import Sparsity
from saelab.evaluation.suites import Reader
from saelab.evaluation.sums import RunningMean
from saelab.models import LanguageModel, Site
from saelab.progress import track
from saelab.training.origin import check_fit, written_before_read


@dataclass(frozen=True)
class Text:
    """Where the rows of tokens came from; stated in every report."""

    corpus: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    positions: int | None = None
    """How many positions are expected, for the progress bar."""
    labels: LabelRows | None = None
    """What is known of every token, in the order of `microworld.LABELS`; None for text of which nothing is known."""


@dataclass
class _Extent:
    """What has gone by."""

    positions: int = 0
    tokens: int = 0
    predictions: int = 0
    documents: set[int] = field(default_factory=set)

    def add(self, batch: CleanBatch) -> None:
        self.positions += batch.ids.numel()
        self.tokens += int(batch.keep.sum())
        self.predictions += int(batch.scored.sum())
        self.documents.update(batch.kept_documents.unique().tolist())


@torch.no_grad()
def measure(
    model: LanguageModel,
    subjects: Sequence[Subject],
    rows: Iterable[TokenRows],
    suites: Sequence[Suite] = ("fidelity", "sparsity"),
    *,
    mean_tokens: int = 10_000,
    resamples: int = 1000,
    seed: int = 0,
    text: Text | None = None,
) -> list[AnyReport]:
    """Evaluate any number of dictionaries, each at a site of its own, on one pass over `rows`.

    Args:
        rows: held-out rows of tokens in the size in which they go through the model; `keep` decides what counts.
        mean_tokens: the rows up to this many kept tokens are read ahead, to estimate the mean that ablates.
        seed: of the bootstrap.

    Returns:
        One report for each dictionary and suite, dictionaries in the order given, suites inside.

    Raises:
        UserError: a site does not fit the model, no position is kept, or activations are not finite.
    """
    for subject in subjects:
        check_fit(subject.name, subject.dictionary.config, subject.site, model)
        if "fidelity" in suites:
            _check_order(subject)
    text = text or Text()
    started = time.monotonic()
    sites = sorted({site for subject in subjects for site in (subject.site, *subject.writes)})
    rows, means = _read_ahead(model, rows, sites, mean_tokens)
    labelled = None if text.labels is None else LabelledTokens(tuple(LABELS), text.labels)
    readers = [(s, _reader(suite, s, means, labelled, resamples, seed)) for s in subjects for suite in suites]
    with_output = any(reader.needs_output for _, reader in readers)
    extent = _Extent()
    with track(text.positions, "evaluate") as bar:
        for chunk in rows:
            batch = CleanBatch(model, chunk, sites, with_output)
            extent.add(batch)
            for _, reader in readers:
                reader.see(batch)
            bar.advance(batch.ids.numel())
    seconds = time.monotonic() - started
    return [
        reader.report(_provenance(subject, model, extent, means[subject.site].n, seed, seconds, text))
        for subject, reader in readers
    ]


def _read_ahead(
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


def _check_order(subject: Subject) -> None:
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


def _provenance(
    subject: Subject, model: LanguageModel, extent: _Extent, mean_tokens: int, seed: int, seconds: float, text: Text
) -> Provenance:
    config = subject.dictionary.config
    return Provenance(
        dictionary=subject.name,
        dictionary_sha256=config.weights_sha256 or None,
        architecture=config.architecture,
        d_in=config.d_in,
        d_sae=config.d_sae,
        k=budget(config),
        site=str(subject.site),
        targets=tuple(target.site for target in config.targets),
        selection_rule=selection_rule(config),
        model=model.name,
        model_revision=model.revision,
        model_fingerprint=model.fingerprint,
        dtype=_dtype(model),
        device=str(model.device),
        corpus=None if text.corpus is None else dict(text.corpus),
        token_policy=config.policy,
        documents=len(extent.documents),
        positions=extent.positions,
        excluded=extent.positions - extent.tokens,
        tokens=extent.tokens,
        predictions=extent.predictions,
        mean_tokens=mean_tokens,
        seed=seed,
        seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        saelab_version=saelab.__version__,
        settings=dict(text.settings),
    )


def _dtype(model: LanguageModel) -> str:
    return str(model.dtype).removeprefix("torch.")


def budget(config: DictionaryConfig) -> int | None:
    """Active latents per token that training aimed at; None where a fixed price of firing decided."""
    allocation = config.allocation
    if isinstance(allocation, Budgeted | GroupChoice):
        return config.k
    return config.k if allocation.penalty.coefficient is None else None


_RULES = {
    "token": "top {k} of each token",
    "mutual": "above one fixed threshold",
    "feature": "above a fixed threshold per latent",
    "relu": "every positive pre-activation",
    "jumprelu": "above a learnt threshold per latent",
    "gated": "where the gate is open",
    "group": "the best of each group",
}


def selection_rule(config: DictionaryConfig) -> str:
    """How a finished dictionary chooses latents, in words."""
    words = _RULES[config.allocation.kind].format(k=config.k)
    return f"{words}, gradient-free" if config.affinity.kind == "gradient" else words
