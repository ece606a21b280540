"""Where rows begin and end: which stretch of which documents fills each row, worked out from lengths alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from saelab.corpora.policy import TokenPolicy
from saelab.corpora.rows import Cursor
from saelab.corpora.tokens import TokenisedDocument


class Piece(NamedTuple):
    """Tokens `begin` to `end` (half open) of a document, its separator (where there are separators) being token 0."""

    document: TokenisedDocument
    begin: int
    end: int


class Span(NamedTuple):
    """What fills a row, its own BOS and its padding set aside."""

    pieces: tuple[Piece, ...]
    next: Cursor
    """Where the row after it begins."""
    dropped: int
    """Tokens of text between the row before and this one that no row holds."""


class Spans:
    """Documents in, spans of full rows out; what waits for its row to fill up is remembered.

    Args:
        separated: each document is preceded by a separator.
        merges: that separator is BOS, and the policy begins each row with one: no model was trained on two in a row,
            so that of the row serves both.
        cursor: where the first row begins.
    """

    def __init__(self, policy: TokenPolicy, separated: bool, merges: bool, cursor: Cursor) -> None:
        self.policy, self.cursor = policy, cursor
        self._separated, self._merges = separated, merges
        self._waiting: deque[Piece] = deque()
        self._length = 0
        self._dropped = 0

    @property
    def left_over(self) -> int:
        """Tokens of text behind the last row."""
        return self._dropped + sum(map(self._text, self._waiting))

    def add(self, document: TokenisedDocument) -> Iterator[Span]:
        """Append a document; give all rows that are full, and with `pad` the rest of the document as a row too."""
        size = len(document.ids) + self._separated
        begin = self.cursor.token if document.number == self.cursor.document else 0  # earlier rows hold its first ones
        if not self.policy.cross_documents:
            self._dropped = self.left_over
            self._waiting.clear()
            self._length = 0
        if size > begin:
            self._waiting.append(Piece(document, begin, size))
            self._length += size - begin
        room = self.policy.context - self.policy.bos
        while self._merged() + room <= self._length:
            yield self._take(self._merged() + room)
        if self.policy.pad and any(map(self._text, self._waiting)):
            yield self._take(self._length)

    def _merged(self) -> int:
        """1 where the next row's own BOS takes the place of the separator that it would begin with."""
        return int(self._merges and bool(self._waiting) and self._waiting[0].begin == 0)

    def _take(self, count: int) -> Span:
        merged, pieces, missing = self._merged(), [], count
        while missing:
            piece = self._waiting.popleft()
            end = min(piece.begin + missing, piece.end)
            missing -= end - piece.begin
            pieces.append(piece._replace(end=end))
            if end < piece.end:
                self._waiting.appendleft(piece._replace(begin=end))
        last = pieces[-1]
        inside = bool(self._waiting) and self._waiting[0].document is last.document
        document, token = (last.document.number, last.end) if inside else (last.document.number + 1, 0)
        self.cursor = Cursor(document, token, self.cursor.row + 1, self.cursor.epoch)
        self._length -= count
        pieces[0] = pieces[0]._replace(begin=pieces[0].begin + merged)
        span = Span(tuple(piece for piece in pieces if piece.end > piece.begin), self.cursor, self._dropped)
        self._dropped = 0
        return span

    def _text(self, piece: Piece) -> int:
        """Tokens of text in a piece."""
        return piece.end - max(piece.begin, int(self._separated))
