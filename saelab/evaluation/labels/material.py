"""What all dictionaries of a pass have in common: labels, documents, activations, and the probes of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch
from saelab.evaluation.found import Found, under
from saelab.evaluation.labels.probes import DenseProbe, dense_probe
from saelab.models import Site

LEAST = 10  # tokens of either kind that a label must have in each half


class LabelledTokens:
    """Kept tokens of a text with labels, divided by document: even ones to fit on, odd ones to judge on.

    Memory: the activations of all sites stay in memory in float32, on the CPU.

    Args:
        sites: that dictionaries read.
    """

    everywhere: ClassVar = False

    def __init__(self, names: Sequence[str], sites: Iterable[Site]) -> None:
        self.names = tuple(names)
        self._labels: list[Bool[Tensor, "tokens labels"]] = []
        self._documents: list[Int[Tensor, "tokens"]] = []
        self._x: dict[Site, list[Float[Tensor, "tokens width"]]] = {site: [] for site in sites}
        self._probes: dict[Site, DenseProbe] = {}
        self._projections: dict[Site, Float[Tensor, "judge judged"]] = {}

    def measure(self, batch: CleanBatch) -> Found:
        """What is known of a batch's tokens, and their activations."""
        if batch.labels is None:
            raise ValueError("nothing is known of the tokens of this text")
        x = {str(site): batch.x[site][batch.keep].float().cpu() for site in self._x}
        return {"labels": batch.labels[batch.keep.cpu()], "documents": batch.kept_documents, **under("x", x)}

    def take(self, found: Found) -> None:
        """Keep what `measure` made of the next batch."""
        self._labels.append(found["labels"])
        self._documents.append(found["documents"])
        for site, x in self._x.items():
            x.append(found[f"x/{site}"])

    @cached_property
    def documents(self) -> Int[Tensor, "tokens"]:
        return torch.cat(self._documents)

    @cached_property
    def fit(self) -> Bool[Tensor, "tokens"]:
        """Tokens to fit on; the others are judged on."""
        return self.documents % 2 == 0

    @cached_property
    def _all(self) -> Bool[Tensor, "tokens labels"]:
        return torch.cat(self._labels)

    @cached_property
    def judged(self) -> list[int]:
        """Labels with enough tokens of both kinds in both halves.

        Raises:
            UserError: there is none.
        """
        labels = self._all
        halves = [labels[self.fit], labels[~self.fit]]
        enough = [(h.sum(0) >= LEAST) & ((~h).sum(0) >= LEAST) for h in halves]
        found = (enough[0] & enough[1]).nonzero()[:, 0].tolist()
        if not found:
            raise UserError(f"no label has {LEAST} tokens in both halves of the {len(labels)} tokens read; read more")
        return found

    @cached_property
    def labels(self) -> Bool[Tensor, "tokens judged"]:
        """Of every token, in the order of `judged`."""
        return self._all[:, self.judged]

    def dense(self, site: Site) -> DenseProbe:
        """Probes that see the whole activation."""
        if site not in self._probes:
            x = torch.cat(self._x[site])
            self._probes[site] = dense_probe(x[self.fit], self.labels[self.fit], x[~self.fit])
        return self._probes[site]

    def projection(self, site: Site) -> Float[Tensor, "judge judged"]:
        """How much further along a label's dense probe each token judged on lies than the mean token without the label
        among those fitted on."""
        if site not in self._projections:
            x = torch.cat(self._x[site])
            along = x @ self.dense(site).direction
            without = (~self.labels & self.fit[:, None]).float()
            base = (along * without).sum(0) / without.sum(0)
            self._projections[site] = (along - base)[~self.fit]
        return self._projections[site]
