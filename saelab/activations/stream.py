"""`ActivationStream`: the model runs as training goes; nothing is written to disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from saelab.activations.columns import Rows
from saelab.activations.forward import Forward
from saelab.activations.shuffle import Group, ShuffledGroups
from saelab.activations.source import Feed, Origin
from saelab.corpora.config import CorpusConfig
from saelab.corpora.packing import Cursor, TokenRows, pack
from saelab.corpora.policy import TokenPolicy
from saelab.corpora.sources import is_endless
from saelab.errors import UserError
from saelab.models import LanguageModel

_PASS_ROWS, _PASS_TOKENS = 16, 4096  # at least as many in one forward pass: small ones pay for the model's bookkeeping


class Place(NamedTuple):
    """Where some rows begin, and how many kept tokens come before them, earlier epochs included."""

    cursor: Cursor = Cursor()
    kept: int = 0


class _Piece(NamedTuple):
    """Kept tokens of one forward pass, and where its rows begin."""

    rows: Rows
    place: Place


class ActivationStream(ShuffledGroups):
    """Activations of some sites, made from text in the corpus' order and shuffled within the buffer.

    One forward pass (and one backward, if gradients are wanted) serves all feeds. A corpus that ends begins again.
    Reaching a far batch tokenises the text before it but does not run the model on it.
    Memory: one buffer of `buffer_tokens` rows for each column (site, or gradients at a site) in the model's dtype on
    the model's device, and one forward pass.

    Args:
        rows: rows of tokens in one forward pass; left out, 16, or more where they are short.
    """

    def __init__(
        self,
        model: LanguageModel,
        corpus: CorpusConfig,
        policy: TokenPolicy,
        feeds: Sequence[Feed],
        *,
        buffer_tokens: int = 262_144,
        rows: int | None = None,
        seed: int = 0,
    ) -> None:
        widths = {site: model.width(site) for feed in feeds for site in feed.sites}
        super().__init__(feeds, widths, buffer_tokens, seed, model.device)
        self.corpus, self.policy = corpus, policy
        self.rows = rows or max(_PASS_ROWS, _PASS_TOKENS // policy.context)
        self.forward = Forward(model, policy, self.columns)
        self._epoch: Place | None = None  # the end of the first epoch, once it was seen
        self._group, self._filled = -1, 0
        self._buffer: Rows | None = None
        self._pieces: Iterator[_Piece] = iter(())
        self._rest: _Piece | None = None  # what the last forward pass made beyond the group's end
        self.bookmarks: list[Place] = []
        """Where the last groups began. Set in another stream of the same settings, they spare it the way there."""

    def origin(self, feed: int) -> Origin:
        """As the model and the settings say."""
        model, wanted = self.forward.model, self.feeds[feed]
        return Origin(
            model.name, model.revision, model.fingerprint, self.forward.tokenizer_fingerprint,
            str(wanted.site), tuple(map(str, wanted.targets)), self.corpus, self.policy,
        )  # fmt: skip

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
            if place.kept + rows.n_kept >= n:
                break
        return n

    def _place(self, token: int) -> tuple[Group, int]:
        number, offset = divmod(token, self.buffer_tokens)
        return Group(0, number, self.buffer_tokens), offset

    def _load(self, group: Group, seed: int, count: int) -> Rows:
        if group.number != self._group:
            self._begin(group.number)
        while self._filled < count:
            piece, self._rest = self._rest or next(self._pieces), None
            if self._filled == 0:
                self.bookmarks = [*self.bookmarks[-2:], piece.place]
            self._buffer = self._buffer or piece.rows.room(self.buffer_tokens)
            fits = min(len(piece.rows), self.buffer_tokens - self._filled)
            self._buffer.put(self._filled, piece.rows.take(slice(0, fits)))
            self._filled += fits
            if fits < len(piece.rows):
                self._rest = piece._replace(rows=piece.rows.take(slice(fits, None)))
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

    def _run(self, start: Place, wanted: int) -> Iterator[_Piece]:
        """Activations from the `wanted`-th kept token on. Forward passes are cut the same way wherever one starts."""
        for rows, place in self._rows(start):
            end = place.kept + rows.n_kept
            if end <= wanted:
                continue
            tokens = torch.arange(place.kept, end, device=self.device)
            made = Rows(self.forward(rows), tokens)
            yield _Piece(made.take(slice(max(wanted - place.kept, 0), None)), place)

    def _rows(self, start: Place) -> Iterator[tuple[TokenRows, Place]]:
        kept = start.kept
        for rows in pack(self.corpus, self.forward.tokenizer, self.policy, self.rows, start.cursor, repeat=True):
            if rows.start == Cursor(row=rows.start.row, epoch=1):
                self._epoch = Place(rows.start, kept)
                if kept == 0:
                    raise UserError(f"the policy excludes every token of corpus {self.corpus.source!r}")
            yield rows, Place(rows.start, kept)
            kept += rows.n_kept
