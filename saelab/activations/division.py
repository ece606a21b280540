"""Which shards are to be made, and who makes which: the next one goes to whoever asks.

A shard's content does not depend on who makes it, so neither does the directory's. Every rank reads the same text and
keeps the rows of its own shards; the model, which is what costs, sees each row once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

from transformers import PreTrainedTokenizerFast

from saelab.activations.config import HarvestConfig
from saelab.activations.manifest import CorpusPlace
from saelab.corpora.packing import pack
from saelab.corpora.rows import Cursor, TokenRows


@dataclass(frozen=True)
class Work:
    """What is to be made."""

    numbers: list[int]
    """Shards that are missing or damaged."""
    onwards: int | None
    """And all from this number on, to the end of the tokens or of the text; None when there are no more."""
    manifest: str
    """SHA-256 of the manifest that says so."""

    @property
    def is_empty(self) -> bool:
        return not self.numbers and self.onwards is None

    @classmethod
    def from_json(cls, text: str) -> Work:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def claims(work: Work, count: Callable[[int], int]) -> Iterator[int]:
    """Numbers of shards for this rank, rising; each goes to one rank. Taking one means to make it.

    Args:
        count: the ranks' counter (`Ranks.counter`) of shards taken.
    """
    while True:
        place = count(1) - 1
        if place < len(work.numbers):
            yield work.numbers[place]
        elif work.onwards is None:
            return
        else:
            yield work.onwards + place - len(work.numbers)


def passes(
    config: HarvestConfig,
    tokenizer: PreTrainedTokenizerFast,
    numbers: Iterator[int],
    starts: Mapping[int, CorpusPlace],
) -> Iterator[tuple[int, TokenRows]]:
    """The rows of each forward pass over the shards `numbers`, with the shard's number.

    The text is read on from shard to shard. Where a place nearer to the next one is known it goes on from there.
    """
    reading: Iterator[TokenRows] = iter(())
    row = -1
    for number in numbers:
        first = number * config.shard_rows
        stop = min(first + config.shard_rows, config.rows)
        if first >= stop:
            return
        known = starts[max(n for n in starts if n <= number)]
        if known.row > row:
            row = known.row
            cursor = Cursor(document=known.document, token=known.token, row=row)
            reading = pack(config.corpus, tokenizer, config.policy, config.batch, cursor, limit=config.rows - row)
        while row < stop:
            rows = next(reading, None)
            if rows is None:
                return
            row += len(rows)
            if row > first:
                yield number, rows
