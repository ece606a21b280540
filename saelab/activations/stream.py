"""`ActivationStream`: the model runs as training goes; nothing is written to disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.activations.forward import Forward
from saelab.activations.shuffle import Group, ShuffledGroups
from saelab.activations.source import Origin
from saelab.corpora.config import CorpusConfig
from saelab.corpora.packing import Cursor, TokenRows, pack
from saelab.corpora.policy import TokenPolicy
from saelab.corpora.sources import is_endless
from saelab.errors import UserError
from saelab.models import LanguageModel, Site


class Place(NamedTuple):
    """Where some rows begin, and how many kept tokens come before them, earlier epochs included."""

    cursor: Cursor = Cursor()
    kept: int = 0


class _Piece(NamedTuple):
    """Kept tokens of one forward pass, and where its rows begin."""

    batch: ActivationBatch
    place: Place


class ActivationStream(ShuffledGroups):
    """Activations of one site, made from text in the corpus' order and shuffled within the buffer.

    A corpus that ends begins again. Reaching a far batch tokenises the text before it but does not run the model on it.
    Memory: one buffer of `buffer_tokens` rows in the model's dtype on the model's device, and one forward pass.

    Args:
        target: site to reconstruct, when it is another than `site`.
        gradients: deliver the gradient of the model's summed loss with respect to `site` too.
        rows: rows of tokens in one forward pass.
    """

    def __init__(
        self,
        model: LanguageModel,
        corpus: CorpusConfig,
        policy: TokenPolicy,
        site: Site,
        *,
        buffer_tokens: int = 262_144,
        target: Site | None = None,
        gradients: bool = False,
        rows: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(buffer_tokens, seed, model.device)
        self.site, self.target = site, target or site
        self.corpus, self.policy, self.rows = corpus, policy, rows
        sites = [self.site] if target in (None, site) else [self.site, self.target]
        self.forward = Forward(model, policy, sites, gradients)
        self.d_in, self.d_out = model.width(self.site), model.width(self.target)
        self.origin = Origin(
            model.name, model.revision, model.fingerprint, self.forward.tokenizer_fingerprint,
            str(self.site), str(self.target), corpus, policy,
        )  # fmt: skip
        self._epoch: Place | None = None  # the end of the first epoch, once it was seen
        self._group, self._filled = -1, 0
        self._buffer: ActivationBatch | None = None
        self._pieces: Iterator[_Piece] = iter(())
        self._rest: _Piece | None = None  # what the last forward pass made beyond the group's end
        self.bookmarks: list[Place] = []
        """Where the last groups began. Set in another stream of the same settings, they spare it the way there."""

    @property
    def n_tokens(self) -> int | None:
        """Kept tokens of an epoch (the corpus is tokenised once to count them); None for an endless corpus."""
        if is_endless(self.corpus):
            return None
        for _ in self._rows(Place()):
            if self._epoch is not None:
                break
        assert self._epoch is not None  # a corpus that ends begins again
        return self._epoch.kept

    def _available(self, n: int) -> int:
        if is_endless(self.corpus):
            return n
        for rows, place in self._rows(Place()):
            if self._epoch is not None:
                return min(n, self._epoch.kept)
            if place.kept + int(rows.keep.sum()) >= n:
                break
        return n

    def _place(self, token: int) -> tuple[Group, int]:
        number, offset = divmod(token, self.buffer_tokens)
        return Group(0, number, self.buffer_tokens), offset

    def _load(self, group: Group, seed: int, count: int) -> ActivationBatch:
        if group.number != self._group:
            self._begin(group.number)
        while self._filled < count:
            piece, self._rest = self._rest or next(self._pieces), None
            if self._filled == 0:
                self.bookmarks = [*self.bookmarks[-2:], piece.place]
            fits = min(len(piece.batch), self.buffer_tokens - self._filled)
            self._put(piece.batch.take(slice(0, fits)))
            if fits < len(piece.batch):
                self._rest = piece._replace(batch=piece.batch.take(slice(fits, None)))
        assert self._buffer is not None  # count is at least 1
        return self._buffer

    def _begin(self, group: int) -> None:
        """Go to the start of a group: further on from the group before, or from the nearest place that is known."""
        if group != self._group + 1 or self._filled != self.buffer_tokens:
            wanted = group * self.buffer_tokens
            known = [Place(), *(place for place in self.bookmarks if place.kept <= wanted)]
            if self._epoch is not None:
                epoch = wanted // self._epoch.kept
                known.append(Place(Cursor(row=epoch * self._epoch.cursor.row, epoch=epoch), epoch * self._epoch.kept))
            self._pieces, self._rest = self._run(max(known, key=lambda place: place.kept), wanted), None
        self._group, self._filled = group, 0

    def _put(self, batch: ActivationBatch) -> None:
        if self._buffer is None:
            self._buffer = _empty_like(batch, self.buffer_tokens)
        end = self._filled + len(batch)
        for whole, part in zip(_tensors(self._buffer), _tensors(batch), strict=True):
            whole[self._filled : end] = part
        self._filled = end

    def _run(self, start: Place, wanted: int) -> Iterator[_Piece]:
        """Activations from the `wanted`-th kept token on. Forward passes are cut the same way wherever one starts."""
        for rows, place in self._rows(start):
            kept = int(rows.keep.sum())
            if place.kept + kept <= wanted:
                continue
            batch = self._batch(rows, torch.arange(place.kept, place.kept + kept))
            yield _Piece(batch.take(slice(max(wanted - place.kept, 0), None)), place)

    def _rows(self, start: Place) -> Iterator[tuple[TokenRows, Place]]:
        kept = start.kept
        for rows in pack(self.corpus, self.forward.tokenizer, self.policy, self.rows, start.cursor, repeat=True):
            if rows.start == Cursor(row=rows.start.row, epoch=1):
                self._epoch = Place(rows.start, kept)
                if kept == 0:
                    raise UserError(f"the policy excludes every token of corpus {self.corpus.source!r}")
            yield rows, Place(rows.start, kept)
            kept += int(rows.keep.sum())

    def _batch(self, rows: TokenRows, tokens: Tensor) -> ActivationBatch:
        made = self.forward(rows)
        x = made.activations[self.site]
        return ActivationBatch(x, made.activations[self.target], made.gradients.get(self.site), tokens.to(x.device))


def _tensors(batch: ActivationBatch) -> list[Tensor]:
    target = [] if batch.target is batch.x else [batch.target]
    gradient = [] if batch.gradient is None else [batch.gradient]
    return [batch.x, *target, *gradient, batch.tokens]


def _empty_like(batch: ActivationBatch, rows: int) -> ActivationBatch:
    x = batch.x.new_empty(rows, batch.x.shape[1])
    target = x if batch.target is batch.x else batch.target.new_empty(rows, batch.target.shape[1])
    gradient = None if batch.gradient is None else batch.gradient.new_empty(rows, batch.gradient.shape[1])
    return ActivationBatch(x, target, gradient, batch.tokens.new_empty(rows))
