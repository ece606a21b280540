"""`ActivationStream`: the model runs as training goes; nothing is written to disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaxtyping import Int
from torch import Tensor

from saelab.activations.forward import Forward
from saelab.activations.pieces import Piece, Pieces, Place
from saelab.activations.prefetch import prefetch
from saelab.activations.ring import Ring
from saelab.activations.shuffle import Group, ShuffledGroups
from saelab.activations.source import Feed, Origin
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.corpora.rows import Cursor
from saelab.corpora.sources import is_endless
from saelab.models import LanguageModel

_PASS_ROWS, _PASS_TOKENS = 16, 4096  # at least as many in one forward pass: small ones pay for the model's bookkeeping
_AHEAD = 8  # an eighth of a group may wait for room


class ActivationStream(ShuffledGroups):
    """Activations of some sites, made from text in the corpus' order and shuffled within the buffer.

    One forward pass (and one backward, if gradients are wanted) serves all feeds. A corpus that ends begins again.
    Reaching a far batch tokenises the text before it but does not run the model on it (where the policy looks at sinks,
    up to their site only).

    With `overlap` the model runs in a thread beside the training: the next group grows in the places of rows that were
    delivered, so that its first batch is ready when the last one of this group is. Without, a group is made when its
    first batch is wanted. Batches are the same bits either way.

    Memory: a buffer of `buffer_tokens` rows for each column (site, or gradients at a site) in the model's dtype on the
    model's device, with `overlap` an eighth more (or two forward passes), and one forward pass.

    Args:
        rows: rows of tokens in one forward pass; left out, 16, or more where they are short.
        overlap: left out, true unless the model is on a CPU: there both want the same cores, and what the trainer does
            to make its products fast (`saelab.kernels.product`) would change the bits of a model that runs meanwhile.
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
        overlap: bool | None = None,
    ) -> None:
        widths = {site: model.width(site) for feed in feeds for site in feed.sites}
        super().__init__(feeds, widths, buffer_tokens, seed, model.device)
        rows = rows or max(_PASS_ROWS, _PASS_TOKENS // policy.context)
        self.corpus, self.policy = corpus, policy
        self.overlap = model.device.type != "cpu" if overlap is None else overlap
        self._text = Pieces(corpus, policy, Forward(model, policy, self.columns), rows)
        self._ring = Ring(buffer_tokens)
        self._group, self._seed = -1, 0
        self._pieces: Iterator[Piece] = iter(())
        self._rest: Piece | None = None  # what the last forward pass made beyond the room there was
        self.bookmarks: list[Place] = []
        """Where the last groups began. Set in another stream of the same settings, they spare it the way there."""

    def origin(self, feed: int) -> Origin:
        """As the model and the settings say."""
        forward, wanted = self._text.forward, self.feeds[feed]
        model = forward.model
        return Origin(
            model.name, model.revision, model.fingerprint, forward.tokenizer_fingerprint,
            str(wanted.site), tuple(map(str, wanted.targets)), self.corpus, self.policy,
        )  # fmt: skip

    @property
    def n_tokens(self) -> int | None:
        """Kept tokens of an epoch (the corpus is tokenised once to count them); None for an endless corpus."""
        if is_endless(self.corpus):
            return None
        end = self._text.epoch_end()
        assert end is not None  # a corpus that ends begins again
        return end.kept

    def _available(self, n: int) -> int:
        if is_endless(self.corpus):
            return n
        end = self._text.epoch_end(enough=n)
        return n if end is None else min(n, end.kept)

    def _place(self, token: int) -> tuple[Group, int]:
        number, offset = divmod(token, self.buffer_tokens)
        return Group(0, number, self.buffer_tokens), offset

    def _load(self, group: Group, seed: int, count: int, delivered: Int[Tensor, "n"]) -> Ring:
        gone = self._ring.ahead > 0 and (seed != self._seed or len(delivered) < self._ring.ahead)
        if group.number != self._group or gone:
            self._begin(group.number)
        self._seed = seed
        while self._ring.filled < count:
            self._put()
        self._ring.deliver(delivered)
        while self.overlap and count == self.buffer_tokens and self._ring.room >= self._text.rows * self.policy.context:
            self._put()
        return self._ring

    def _put(self) -> None:
        """The next forward pass into the ring, or what it had no room for of the last one."""
        ring, piece = self._ring, self._rest or next(self._pieces)
        full = ring.filled == self.buffer_tokens
        begins = ring.ahead == 0 if full else ring.filled == 0
        rest = ring.put(piece.rows)
        if begins or (ring.ahead > 0 and not full):
            self.bookmarks = [*self.bookmarks[-2:], piece.place]
        self._rest = None if rest is None else piece._replace(rows=rest)

    def _begin(self, group: int) -> None:
        """Go to the start of a group: further on from the group before, or from the nearest place that is known."""
        if group == self._group + 1 and self._ring.filled == self.buffer_tokens:
            self._ring.turn()
        else:
            self._ring.clear()
            wanted = group * self.buffer_tokens
            known = [Place(), *(place for place in self.bookmarks if place.kept <= wanted)]
            if (end := self._text.epoch) is not None:
                epoch = wanted // end.kept
                known.append(Place(Cursor(row=epoch * end.cursor.row, epoch=epoch), epoch * end.kept))
            made = self._text.made(max(known, key=lambda place: place.kept), wanted)
            self._pieces, self._rest = prefetch(made, self._passes_ahead) if self.overlap else made, None
        self._group = group

    @property
    def _passes_ahead(self) -> int:
        return max(2, self.buffer_tokens // _AHEAD // (self._text.rows * self.policy.context))
