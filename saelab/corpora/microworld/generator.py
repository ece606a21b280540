"""`Microworld`: the i-th document of a seed, computed on its own."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, count
from random import Random

from saelab.corpora.documents import Document
from saelab.corpora.microworld import narratives, series, talk
from saelab.corpora.microworld.frames import Scene
from saelab.corpora.microworld.ioi import ioi_document
from saelab.corpora.microworld.words import PEOPLE, Split
from saelab.errors import UserError

_WRITERS: dict[str, Callable[[Scene], None]] = {
    "story": narratives.story,
    "pronouns": narratives.pronouns,
    "places": narratives.places,
    "comparisons": narratives.comparisons,
    "questions": narratives.questions,
    "letter": narratives.letter,
    "dialogue": talk.dialogue,
    "quotations": talk.quotations,
    "list": series.inline_list,
    "numbered_list": series.numbered_list,
    "counting": series.counting,
    "diary": series.diary,
    "calendar": series.calendar,
    "repetition": series.repetition,
    "refrain": series.refrain,
}
# Shares of documents, not of words: IOI documents are short, 58 % of the documents but 46 % of the words.
DEFAULT_KINDS: Mapping[str, float] = {
    "ioi": 32, "story": 4, "dialogue": 4, "pronouns": 2, "questions": 2, "repetition": 2, "places": 1, "list": 1,
    "numbered_list": 0.5, "counting": 1, "diary": 1, "calendar": 1, "quotations": 1, "comparisons": 1, "letter": 0.7,
    "refrain": 0.5,
}  # fmt: skip


class Microworld:
    """Unlimited labelled documents. `document(i)` is a function of (seed, split, kinds, i); any i costs the same.

    In either split every kind but "ioi" uses all names, places and objects; "ioi" uses the split's half of them, so the
    other half never takes part in an IOI sentence. `kinds` maps kinds of document to relative weights. Raises UserError
    for an unknown kind or weights that are negative or all zero.
    """

    def __init__(self, seed: int = 0, split: Split = "train", kinds: Mapping[str, float] = DEFAULT_KINDS) -> None:
        unknown = [kind for kind in kinds if kind not in _WRITERS and kind != "ioi"]
        if unknown:
            raise UserError(f"the microworld has no kind '{unknown[0]}'; it has ioi, {', '.join(_WRITERS)}")
        if split not in ("train", "test"):
            raise UserError(f"split must be 'train' or 'test', not '{split}'")
        if any(weight < 0 for weight in kinds.values()) or not sum(kinds.values()) > 0:
            raise UserError("the weights of kinds must not be negative, and one must be positive")
        self.seed = seed
        self.split: Split = split
        self.kinds = dict(sorted(kinds.items()))
        self._names = tuple(self.kinds)
        self._edges = list(accumulate(self.kinds.values()))
        self._key = repr((seed, split, [(kind, float(weight)) for kind, weight in self.kinds.items()])).encode()

    def document(self, i: int) -> Document:
        """The i-th document (i ≥ 0)."""
        digest = hashlib.blake2b(self._key + b" %d" % i, digest_size=8).digest()
        rng = Random(int.from_bytes(digest, "little"))
        kind = self._names[bisect(self._edges, rng.random() * self._edges[-1])]
        if kind == "ioi":
            return ioi_document(rng, self.split)
        a, b = rng.sample(PEOPLE, 2)
        scene = Scene(rng, {"A": a, "B": b})
        _WRITERS[kind](scene)
        return scene.writer.document()

    def documents(self, start: int = 0) -> Iterator[Document]:
        """All documents from `start` on, without end."""
        return map(self.document, count(start))
