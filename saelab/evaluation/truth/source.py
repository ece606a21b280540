"""The synthetic truth as trainers take activations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import torch

from saelab.activations.batch import ActivationBatch
from saelab.activations.source import Feed, Origin
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.evaluation.truth.synthetic import SAMPLE, TRAINING, Truth
from saelab.models import Site

SITE = "blocks.0.resid_post"  # a name must stand there; there is no model behind it


class TruthPass:
    """An `ActivationPass` of one feed over endless tokens of `truth`."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.feeds = (Feed(Site.parse(SITE)),)
        self.device = truth.directions.device

    @property
    def n_tokens(self) -> int | None:
        return None

    def origin(self, feed: int) -> Origin:
        """Of no model, corpus or policy: these stand for nothing."""
        return Origin("synthetic", None, "", "", SITE, (), CorpusConfig(), TokenPolicy())

    def d_in(self, feed: int) -> int:
        return self.truth.d_in

    def d_out(self, feed: int) -> int:
        return self.truth.d_in

    def target_widths(self, feed: int) -> tuple[int, ...]:
        return ()

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[tuple[ActivationBatch, ...]]:
        """Batches number `start`, `start + 1`, …, for ever; a pure function of (batch_size, seed, number)."""
        for number in count(start):
            yield self._batch(number * batch_size, batch_size, TRAINING, seed, number)

    def sample(self, n: int) -> tuple[ActivationBatch, ...]:
        """Tokens for estimates, of another stream than the batches."""
        return self._batch(0, n, SAMPLE)

    def _batch(self, first: int, n: int, *stream: int) -> tuple[ActivationBatch, ...]:
        x = self.truth.draw(n, *stream).x
        return (ActivationBatch(x, x, None, torch.arange(first, first + n)),)
