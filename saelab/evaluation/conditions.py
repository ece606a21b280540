"""Under which conditions a pass goes by: its text, what of it was seen, and by which rule latents were chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import torch

import saelab
from saelab.corpora import TokenRows
from saelab.corpora.microworld.labels import LABELS
from saelab.dictionaries.config import Budgeted, DictionaryConfig, GroupChoice
from saelab.evaluation.batch import CleanBatch, LabelRows, Subject
from saelab.evaluation.found import Found
from saelab.evaluation.provenance import Provenance
from saelab.models import LanguageModel


def _as_they_are(rows: TokenRows) -> TokenRows:
    return rows


@dataclass(frozen=True)
class Text:
    """Where the rows of tokens came from; stated in every report."""

    corpus: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    positions: int | None = None
    """How many positions are expected, for the progress bar."""
    labels: LabelRows | None = None
    """What is known of every token, in the order of `microworld.LABELS`; None for text of which nothing is known."""
    ready: Callable[[TokenRows], TokenRows] = _as_they_are
    """What is done to rows before they are read: attention sinks are left out."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the labels."""
        return () if self.labels is None else tuple(LABELS)


@dataclass
class Extent:
    """What has gone by."""

    everywhere: ClassVar = False
    positions: int = 0
    tokens: int = 0
    predictions: int = 0
    documents: set[int] = field(default_factory=set)

    def measure(self, batch: CleanBatch) -> Found:
        """What one batch comes to."""
        return {
            "positions": torch.tensor(batch.ids.numel()),
            "tokens": batch.keep.sum(),
            "predictions": batch.scored.sum(),
            "documents": batch.kept_documents.unique(),
        }

    def take(self, found: Found) -> None:
        """Add what `measure` made of the next batch."""
        self.positions += int(found["positions"])
        self.tokens += int(found["tokens"])
        self.predictions += int(found["predictions"])
        self.documents.update(found["documents"].tolist())


def provenance(
    subject: Subject, model: LanguageModel, extent: Extent, mean_tokens: int, seed: int, seconds: float, text: Text
) -> Provenance:
    """What a report on `subject` states about its making."""
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
    """Active latents per token that training aimed at; None where a fixed price of firing decided, or nobody knows."""
    allocation = config.allocation
    if isinstance(allocation, Budgeted | GroupChoice):
        return config.k
    if config.imported_from:
        return None
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
