"""The text's kept tokens with their activations, one forward pass after another, from any place on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.activations.columns import Column, Rows
from saelab.activations.forward import Forward
from saelab.activations.prefetch import prefetch
from saelab.corpora.config import CorpusConfig
from saelab.corpora.packing import pack
from saelab.corpora.policy import TokenPolicy
from saelab.corpora.rows import Cursor, TokenRows
from saelab.errors import UserError

_TOKENISED_AHEAD = 4  # forward passes whose tokens wait


class Place(NamedTuple):
    """Where some rows begin, and how many kept tokens come before them, earlier epochs included."""

    cursor: Cursor = Cursor()
    kept: int = 0


class Piece(NamedTuple):
    """Kept tokens of one forward pass, and where its rows begin."""

    rows: Rows
    place: Place


class Pieces:
    """A corpus, which begins again where it ends, under a model. Forward passes are cut the same wherever one starts.

    Attributes:
        rows: rows of tokens in one forward pass.
        epoch: the end of the first epoch, once somebody came by it.
    """

    def __init__(self, corpus: CorpusConfig, policy: TokenPolicy, forward: Forward, rows: int) -> None:
        self.corpus, self.policy, self.forward, self.rows = corpus, policy, forward, rows
        self.epoch: Place | None = None

    def made(self, start: Place, wanted: int) -> Iterator[Piece]:
        """Activations from the `wanted`-th kept token on, found from `start` on. Text is tokenised in a thread."""
        device = self.forward.model.device
        for rows, place, made in self._walk(start, wanted):
            end = place.kept + rows.n_kept
            if made is None or end <= wanted:
                continue
            tokens = torch.arange(place.kept, end, device=device)
            yield Piece(Rows(made, tokens).take(slice(max(wanted - place.kept, 0), None)), place)

    def epoch_end(self, enough: float = math.inf) -> Place | None:
        """The end of the first epoch, or None if `enough` kept tokens come before it. Reads the text up to there."""
        for rows, place, _ in self._walk(Place()):
            if self.epoch is not None or place.kept + rows.n_kept >= enough:
                break
        return self.epoch

    def _walk(
        self, start: Place, wanted: float = math.inf
    ) -> Iterator[tuple[TokenRows, Place, Mapping[Column, Tensor] | None]]:
        """Rows, their place, and where they may hold the `wanted`-th kept token or later ones, their activations."""
        kept = start.kept
        packed = pack(self.corpus, self.forward.tokenizer, self.policy, self.rows, start.cursor, repeat=True)
        with closing(prefetch(packed, _TOKENISED_AHEAD)) as ahead:
            for rows in ahead:
                if rows.start == Cursor(row=rows.start.row, epoch=1):
                    self.epoch = Place(rows.start, kept)
                    if kept == 0:
                        raise UserError(f"the policy excludes every token of corpus {self.corpus.source!r}")
                made = None
                if kept + rows.n_kept > wanted:
                    rows, made = self.forward(rows)
                else:
                    rows = self.forward.without_sinks(rows)
                yield rows, Place(rows.start, kept), made
                kept += rows.n_kept
