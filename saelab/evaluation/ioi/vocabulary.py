"""The words of the task that a tokenizer holds as single tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from saelab.corpora.microworld import words
from saelab.corpora.microworld.words import PEOPLE, Split
from saelab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Names = Literal["train", "test", "all"]
MIN_NAMES: Final = 10
MIN_WORDS: Final = 2  # places and objects


class Kept(NamedTuple):
    """How many words of a list are single tokens."""

    kept: int
    of: int


@dataclass(frozen=True)
class Vocabulary:
    """The words that a tokenizer holds as single tokens, with their ids; `counts` says how many of how many."""

    names: Mapping[str, int]
    places: Mapping[str, int]
    objects: Mapping[str, int]
    counts: Mapping[str, Kept]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, split: Split, names: Names) -> Vocabulary:
        """The words of one half of the lists of places and objects, and of one half (or all) of the names.

        Raises:
            UserError: too few of them are single tokens.
        """
        people = PEOPLE if names == "all" else words.people_half(names)
        wanted = {
            "names": [person.name for person in people],
            "places": words.half(words.PLACES, split),
            "objects": words.half(words.OBJECTS, split),
        }
        found = {kind: _single_tokens(tokenizer, listing) for kind, listing in wanted.items()}
        for kind, least in (("names", MIN_NAMES), ("places", MIN_WORDS), ("objects", MIN_WORDS)):
            if len(found[kind]) < least:
                raise UserError(
                    f"only {len(found[kind])} of {len(wanted[kind])} {kind} are single tokens of this tokenizer; the "
                    f"task needs {least}, so use a model with a larger vocabulary"
                )
        counts = {kind: Kept(len(found[kind]), len(listing)) for kind, listing in wanted.items()}
        return cls(found["names"], found["places"], found["objects"], counts)


def _single_tokens(tokenizer: PreTrainedTokenizerFast, listing: Sequence[str]) -> dict[str, int]:
    """word → id, for the words that are one token behind a space inside a sentence."""
    before = "Then, "
    encoded = tokenizer(
        [f"{before}{word} and" for word in listing], return_offsets_mapping=True, add_special_tokens=False
    )
    found: dict[str, int] = {}
    for word, ids, offsets in zip(listing, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        first, last = len(before), len(before) + len(word)
        touching = [place for place, (start, end) in enumerate(offsets) if start < last and end > first]
        if len(touching) == 1 and offsets[touching[0]][1] == last and offsets[touching[0]][0] >= first - 1:
            found[word] = ids[touching[0]]
    return found
