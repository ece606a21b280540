"""What all dictionaries of a pass have in common: places to steer at, and what is known of labels.

Everything is learnt on documents with an even number; the places lie in the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch
from saelab.evaluation.labels.material import LEAST
from saelab.evaluation.steering.config import SteeringConfig
from saelab.models import Site

TELLING = 0.8  # of a label's variance that the token's identity explains: its next token then shows whether it is there


class Place(NamedTuple):
    """A random context, and the text's own continuation."""

    ids: Int[Tensor, "context+following"]
    """What is steered is the last position that still has `following` tokens behind it."""
    document: int
    """That the steered token belongs to."""


class _Row(NamedTuple):
    """A row in which a place may be drawn."""

    ids: Int[Tensor, "position"]
    allowed: Int[Tensor, "some"]
    documents: Int[Tensor, "position"]


class SteeringText:
    """The text as the steering suite knows it; memory: some numbers a token, none of them an activation."""

    def __init__(self, names: Sequence[str], config: SteeringConfig, seed: int) -> None:
        self.names, self.config, self.seed = tuple(names), config, seed
        self._seen: CleanBatch | None = None
        self._rows: list[_Row] = []
        self._labels: list[Bool[Tensor, "fit 2·labels"]] = []
        self._counts: Float[Tensor, "half d_vocab 1+labels"] | None = None
        self._moments: dict[tuple[Site, ...], Moments] = {}

    def see(self, batch: CleanBatch, writes: tuple[Site, ...]) -> Bool[Tensor, "tokens"]:
        """Take in a batch, from however many dictionaries it comes; which of its kept tokens are learnt from."""
        here = _learnt(batch)
        if batch is not self._seen:
            self._seen = batch
            self._see_rows(batch)
            self._see_labels(batch, here)
        moments = self._moments.setdefault(writes, Moments())
        if moments.batches < len(self._labels):
            x = torch.cat([batch.x[site][batch.keep].float().cpu() for site in writes], dim=-1)
            moments.add(x, here[batch.keep.cpu()], self._labels[-1])
        return here[batch.keep.cpu()]

    def _see_rows(self, batch: CleanBatch) -> None:
        """Keep the beginning of every row in which a token of the other documents may be steered."""
        following, real = self.config.following, batch.rows.real
        last = min(self.config.longest, real.shape[1] - following)
        # Neither the first position of a row (nothing before it), nor one whose continuation the row does not hold.
        fits = real.cumprod(1).bool()[:, following : following + last] & batch.keep.cpu()[:, :last]
        allowed = fits & (batch.documents[:, :last] % 2 == 1)
        allowed[:, 0] = False
        for ids, some, documents in zip(batch.ids.cpu(), allowed, batch.documents, strict=True):
            if some.any():
                end = last + following
                self._rows.append(_Row(ids[:end].int(), some.nonzero()[:, 0], documents[:end]))

    def _see_labels(self, batch: CleanBatch, here: Bool[Tensor, "rows context"]) -> None:
        labels = batch.labels
        if labels is None:
            labels = torch.zeros(*batch.ids.shape, 0, dtype=torch.bool)
        else:
            both = torch.cat([torch.ones_like(labels[..., :1]), labels], dim=-1).double()
            if self._counts is None:
                self._counts = torch.zeros(2, batch.model.d_vocab, both.shape[-1], dtype=torch.float64)
            for half in (0, 1):
                of_half = batch.rows.real & (batch.documents % 2 == half)
                self._counts[half].index_add_(0, batch.ids.cpu()[of_half], both[of_half])
        ahead = torch.cat([labels[:, 1:], torch.zeros_like(labels[:, :1])], dim=1)
        self._labels.append(torch.cat([labels, ahead], dim=-1)[here])

    @cached_property
    def places(self) -> list[Place]:
        """As many as wanted, from different rows; fewer where the text has fewer.

        Raises:
            UserError: it has fewer than two.
        """
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(self._rows), generator=generator)[: self.config.contexts].sort().values
        places: list[Place] = []
        for row in (self._rows[i] for i in chosen.tolist()):
            at = int(row.allowed[torch.randint(len(row.allowed), (1,), generator=generator)])
            places.append(Place(row.ids[: at + 1 + self.config.following].long(), int(row.documents[at])))
        if len(places) < 2:
            raise UserError(
                f"the text has {len(places)} places to steer at, in documents with an odd number; read more tokens"
            )
        return places

    @cached_property
    def told(self) -> Float[Tensor, "labels"]:
        """Share of each label's variance, in the other documents, that the token's identity explains as it was learnt;
        NaN for a label that is on all or no tokens."""
        assert self._counts is not None
        n, with_label = self._counts[1, :, :1], self._counts[1, :, 1:]
        missed = with_label * (1 - self.rates).square() + (n - with_label) * self.rates.square()
        total = n.sum()
        variance = with_label.sum(0) * (1 - with_label.sum(0) / total)
        return 1 - missed.sum(0) / torch.where(variance > 0, variance, torch.nan)

    @cached_property
    def rates(self) -> Float[Tensor, "d_vocab labels"]:
        """How often a token carries each label, where it was learnt; 0 for tokens that do not occur there."""
        assert self._counts is not None
        return self._counts[0, :, 1:] / self._counts[0, :, :1].clamp_min(1)

    @cached_property
    def targets(self) -> list[int]:
        """Labels to steer towards: those that are wanted; left out, all that the token tells by itself, perhaps none.

        Raises:
            UserError: one is wanted that does not exist or can't be read off a token.
        """
        if self._counts is None:
            if self.config.labels:
                raise UserError("steering.labels: nothing is known of this text's tokens; leave them out")
            return []
        learnt = self.labels.sum(0).unflatten(0, (2, -1))  # kept tokens with the label, and those before one with it
        enough = torch.cat([self._counts[:, :, 1:].sum(1), learnt]).amin(0) >= LEAST
        enough &= self.told >= TELLING
        able = {self.names[i]: i for i in enough.nonzero()[:, 0].tolist()}
        wanted = list(able) if self.config.labels is None else self.config.labels
        unable = [label for label in wanted if label not in able]
        if unable:
            raise UserError(
                f"steering.labels: {unable[0]!r} can't be judged by the next token alone on this text; "
                + (f"these can: {', '.join(able)}" if able else "none can, or only in more tokens")
            )
        return [able[label] for label in wanted]

    @cached_property
    def labels(self) -> Bool[Tensor, "fit 2·labels"]:
        """Of the tokens that are learnt from: those on the token, then those on the next one."""
        return torch.cat(self._labels)

    def moments(self, writes: tuple[Site, ...]) -> Moments:
        """Of the activations at these sites."""
        return self._moments[writes]


class Moments:
    """Sums over activations, fp64: their scatter, and their means on the tokens of each label and elsewhere."""

    def __init__(self) -> None:
        self.batches = 0
        self._n = 0
        self._squares = 0.0
        self._sum: Float[Tensor, "d"] = torch.zeros(())
        self._fit: Float[Tensor, "d"] = torch.zeros(())
        self._of_label: Float[Tensor, "2·labels d"] = torch.zeros(())
        self._with_label: Float[Tensor, "2·labels"] = torch.zeros(())
        self._fitted = 0

    def add(
        self, x: Float[Tensor, "tokens d"], fit: Bool[Tensor, "tokens"], labels: Bool[Tensor, "fit 2·labels"]
    ) -> None:
        """Take in the kept tokens of a batch."""
        self.batches += 1
        x = x.double()
        learnt, on = x[fit], labels.double()
        self._n += len(x)
        self._fitted += len(learnt)
        self._squares += float(x.square().sum())
        self._sum = self._sum + x.sum(0)
        self._fit = self._fit + learnt.sum(0)
        self._of_label = self._of_label + on.T @ learnt
        self._with_label = self._with_label + on.sum(0)

    @property
    def typical(self) -> float:
        """Root of the mean squared distance of an activation from the mean one, over all tokens."""
        scatter = self._squares / self._n - float((self._sum / self._n).square().sum())
        return max(scatter, 0.0) ** 0.5

    @property
    def differences(self) -> Float[Tensor, "2·labels d"]:
        """Mean activation on the tokens of each label less that elsewhere; NaN for a label on all or no tokens."""
        n = self._with_label[:, None]
        elsewhere = (self._fit - self._of_label) / (self._fitted - n)
        return self._of_label / n - elsewhere


def _learnt(batch: CleanBatch) -> Bool[Tensor, "rows context"]:
    """Kept tokens of even documents that have a next token in their row."""
    fit = torch.zeros_like(batch.documents, dtype=torch.bool)
    fit[:, :-1] = batch.scored.cpu() & (batch.documents[:, :-1] % 2 == 0)
    return fit
