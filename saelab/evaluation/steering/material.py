"""What all dictionaries of a pass have in common: places to steer at, and what is known of labels.

Everything is learnt on documents with an even number; the places lie in the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch
from saelab.evaluation.found import Found, part, under
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
    """The text as the steering suite knows it; memory: some numbers a token, none of them an activation.

    Args:
        writes: where each dictionary writes; the same places once.
    """

    everywhere: ClassVar = True

    def __init__(
        self, names: Sequence[str], config: SteeringConfig, seed: int, writes: Iterable[tuple[Site, ...]]
    ) -> None:
        self.names, self.config, self.seed = tuple(names), config, seed
        self._rows: list[_Row] = []
        self._labels: list[Bool[Tensor, "fit 2·labels"]] = []
        self._counts: Float[Tensor, "half d_vocab 1+labels"] | None = None
        self._moments = {sites: Moments() for sites in writes}

    def measure(self, batch: CleanBatch) -> dict[str, Tensor]:
        """What one batch comes to."""
        here = learnt(batch)
        labels = batch.labels
        known = torch.zeros(*batch.ids.shape, 0, dtype=torch.bool) if labels is None else labels
        ahead = torch.cat([known[:, 1:], torch.zeros_like(known[:, :1])], dim=1)
        of_learnt = torch.cat([known, ahead], dim=-1)[here]
        found = {"labels": of_learnt, **under("rows", self._rows_of(batch))}
        if labels is not None:
            real = batch.rows.real
            tokens = {"ids": batch.rows.ids[real], "half": batch.documents[real] % 2, "labels": labels[real]}
            found |= {"d_vocab": torch.tensor(batch.model.d_vocab), **under("tokens", tokens)}
        for number, (sites, moments) in enumerate(self._moments.items()):
            x = torch.cat([batch.x[site][batch.keep].float().cpu() for site in sites], dim=-1)
            found |= under(f"moments {number}", moments.of(x, here[batch.keep.cpu()], of_learnt))
        return found

    def take(self, found: Found) -> None:
        """Keep what `measure` made of the next batch."""
        rows = part(found, "rows")
        for ids, allowed, documents in zip(rows["ids"], rows["allowed"], rows["documents"], strict=True):
            self._rows.append(_Row(ids, allowed.nonzero()[:, 0], documents))
        self._labels.append(found["labels"])
        if tokens := part(found, "tokens"):
            both = torch.cat([torch.ones_like(tokens["labels"][:, :1]), tokens["labels"]], dim=-1).double()
            if self._counts is None:
                self._counts = torch.zeros(2, int(found["d_vocab"]), both.shape[-1], dtype=torch.float64)
            self._counts.index_put_((tokens["half"].long(), tokens["ids"].long()), both, accumulate=True)
        for number, moments in enumerate(self._moments.values()):
            moments.take(part(found, f"moments {number}"))

    def _rows_of(self, batch: CleanBatch) -> dict[str, Tensor]:
        """The beginning of every row in which a token of the other documents may be steered, and at which of them."""
        following, real = self.config.following, batch.rows.real
        last = min(self.config.longest, real.shape[1] - following)
        # Neither the first position of a row (nothing before it), nor one whose continuation the row does not hold.
        fits = real.cumprod(1).bool()[:, following : following + last] & batch.keep.cpu()[:, :last]
        allowed = fits & (batch.documents[:, :last] % 2 == 1)
        allowed[:, 0] = False
        some, end = allowed.any(1), last + following
        ids, documents = batch.rows.ids[some, :end].int(), batch.documents[some, :end]
        return {"ids": ids, "allowed": allowed[some], "documents": documents}

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
        self._n = 0
        self._squares = 0.0
        self._sum: Float[Tensor, "d"] = torch.zeros(())
        self._fit: Float[Tensor, "d"] = torch.zeros(())
        self._of_label: Float[Tensor, "2·labels d"] = torch.zeros(())
        self._with_label: Float[Tensor, "2·labels"] = torch.zeros(())
        self._fitted = 0

    def of(
        self, x: Float[Tensor, "tokens d"], fit: Bool[Tensor, "tokens"], labels: Bool[Tensor, "fit 2·labels"]
    ) -> Found:
        """Sums over the kept tokens of a batch."""
        x = x.double()
        learnt, on = x[fit], labels.double()
        return {
            "n": torch.tensor(len(x)),
            "fitted": torch.tensor(len(learnt)),
            "squares": x.square().sum(),
            "sum": x.sum(0),
            "fit": learnt.sum(0),
            "of label": on.T @ learnt,
            "with label": on.sum(0),
        }

    def take(self, found: Found) -> None:
        """Add what `of` made of the next batch."""
        self._n += int(found["n"])
        self._fitted += int(found["fitted"])
        self._squares += float(found["squares"])
        self._sum = self._sum + found["sum"]
        self._fit = self._fit + found["fit"]
        self._of_label = self._of_label + found["of label"]
        self._with_label = self._with_label + found["with label"]

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


def learnt(batch: CleanBatch) -> Bool[Tensor, "rows context"]:
    """Kept tokens of even documents that have a next token in their row."""
    fit = torch.zeros_like(batch.documents, dtype=torch.bool)
    fit[:, :-1] = batch.scored.cpu() & (batch.documents[:, :-1] % 2 == 0)
    return fit
