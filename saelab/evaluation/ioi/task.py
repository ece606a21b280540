"""Indirect object identification as data for any tokenizer: prompts, attributes, and counterfactuals.

Source: arXiv 2405.08366. "Then, A and B were working at the [place]. C decided to give a [object] to" is answered with
IO, where {A, B} = {IO, S} and C = S. Three attributes vary independently: the names IO and S, and Pos, the order in
which the first clause names them (ABB: IO first; BAB: S first). Every slot holds a word that is a single token, so
prompts and their counterfactuals are made by writing token ids into slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saelab.corpora.microworld.ioi import TEMPLATES, ioi_prompt
from saelab.corpora.microworld.words import PEOPLE, Split
from saelab.errors import UserError
from saelab.evaluation.ioi.vocabulary import Names, Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Attribute = Literal["IO", "S", "Pos"]
ATTRIBUTES: Final[tuple[Attribute, ...]] = ("IO", "S", "Pos")
ROLES: Final = ("IO", "S1", "S1+1", "S2", "END")

TEMPLATES_OF: Final[Mapping[Split, tuple[int, ...]]] = {"train": (1, 2), "test": (3,)}
"""Template 3 is held out."""
_CHECKED = 32  # prompts that are tokenized as whole texts and held against what was composed


@dataclass(frozen=True, eq=False)
class Prompts:
    """n prompts up to and including END, right-padded to one length.

    Attributes:
        at: role → position in the row: where IO, S1 (the subject's first mention), S1+1, S2 and END stand.
        io, s: index into `names`.
        pos: 0 = ABB (IO first), 1 = BAB.
        template: 1, 2 or 3.
        name_ids: token id of each name, as it stands behind a space.
        gender: of each name, 0 = female, 1 = male.
    """

    ids: Int[Tensor, "n position"]
    at: Mapping[str, Int[Tensor, "n"]]
    io: Int[Tensor, "n"]
    s: Int[Tensor, "n"]
    pos: Int[Tensor, "n"]
    template: Int[Tensor, "n"]
    names: tuple[str, ...]
    name_ids: Int[Tensor, "names"]
    gender: Int[Tensor, "names"]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, chosen: slice | Int[Tensor, "m"] | Bool[Tensor, "n"]) -> Prompts:
        """Some of the prompts, in the order asked for."""
        rows = {name: getattr(self, name)[chosen] for name in ("ids", "io", "s", "pos", "template")}
        return replace(self, at={role: at[chosen] for role, at in self.at.items()}, **rows)

    def value(self, attribute: Attribute) -> Int[Tensor, "n"]:
        """The attribute's value in each prompt."""
        return {"IO": self.io, "S": self.s, "Pos": self.pos}[attribute]

    def n_values(self, attribute: Attribute) -> int:
        """How many values the attribute can take."""
        return 2 if attribute == "Pos" else len(self.names)

    @property
    def io_ids(self) -> Int[Tensor, "n"]:
        """Token id of each prompt's right answer."""
        return self.name_ids[self.io]

    @property
    def s_ids(self) -> Int[Tensor, "n"]:
        """Token id of each prompt's wrong answer."""
        return self.name_ids[self.s]

    def counterfactual(self, attributes: Sequence[Attribute], generator: torch.Generator) -> Prompts:
        """The same prompts with these attributes changed and all else equal.

        A name becomes one that is neither IO nor S of its prompt, uniformly; both, two different ones. Pos is flipped.
        """
        n, first = len(self.names), torch.minimum(self.io, self.s)
        second = torch.maximum(self.io, self.s)
        draw = torch.randint(n - 2, (len(self),), generator=generator)
        other = draw + torch.randint(1, n - 2, (len(self),), generator=generator)
        fresh, fresh_too = (_skip(_skip(d % (n - 2), first), second) for d in (draw, other))
        io = fresh if "IO" in attributes else self.io
        s = (fresh_too if "IO" in attributes else fresh) if "S" in attributes else self.s
        return self.with_values(io, s, 1 - self.pos if "Pos" in attributes else self.pos)

    def with_values(self, io: Int[Tensor, "n"], s: Int[Tensor, "n"], pos: Int[Tensor, "n"]) -> Prompts:
        """The same prompts with these values of the three attributes."""
        swap = pos != self.pos
        at = dict(self.at)
        at["IO"] = torch.where(swap, self.at["S1"], self.at["IO"])
        at["S1"] = torch.where(swap, self.at["IO"], self.at["S1"])
        at["S1+1"] = at["S1"] + 1
        ids, rows = self.ids.clone(), torch.arange(len(self))
        ids[rows, at["IO"]] = self.name_ids[io]
        ids[rows, at["S1"]] = ids[rows, at["S2"]] = self.name_ids[s]
        return replace(self, ids=ids, at=at, io=io, s=s, pos=pos)


def _skip(drawn: Int[Tensor, "n"], taken: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Numbers drawn from one fewer, so that none is `taken`."""
    return drawn + (drawn >= taken)


def task(
    tokenizer: PreTrainedTokenizerFast,
    split: Split,
    n: int,
    seed: int = 0,
    templates: Sequence[int] | None = None,
    names: Names | None = None,
    bos: bool = True,
) -> Prompts:
    """`n` prompts, a pure function of the arguments; all attributes are drawn uniformly and independently.

    Args:
        split: which half of the places and objects; also of the names and templates unless they are given.
        templates: some of 1, 2, 3; left out, 1 and 2 for train and 3 (held out) for test.
        names: which half of the names, or all.
        bos: begin with the tokenizer's beginning-of-text token, if it has one.

    Raises:
        UserError: too few words are single tokens, or an unknown template.
    """
    templates = TEMPLATES_OF[split] if templates is None else tuple(templates)
    if not templates or any(template not in TEMPLATES for template in templates):
        raise UserError(f"templates must be some of {TEMPLATES}, not {templates}")
    vocabulary = Vocabulary.of(tokenizer, split, names or split)
    prefix = [tokenizer.bos_token_id] if bos and isinstance(tokenizer.bos_token_id, int) else []
    frames = {template: _Frame.of(tokenizer, template, vocabulary, prefix) for template in templates}
    generator = torch.Generator().manual_seed(seed)

    def drawn(n_choices: int) -> Int[Tensor, "n"]:
        return torch.randint(n_choices, (n,), generator=generator)

    n_names = len(vocabulary.names)
    template = torch.tensor(templates)[drawn(len(templates))]
    io, pos = drawn(n_names), drawn(2)
    s = (io + 1 + drawn(n_names - 1)) % n_names
    fill = {
        "place": torch.tensor(list(vocabulary.places.values()))[drawn(len(vocabulary.places))],
        "object": torch.tensor(list(vocabulary.objects.values()))[drawn(len(vocabulary.objects))],
    }
    prompts = _compose(frames, template, fill, vocabulary).with_values(io, s, pos)
    _check_tokenization(tokenizer, prompts, len(prefix))
    return prompts


@dataclass(frozen=True)
class _Frame:
    """A template's token ids, and the slots among them."""

    ids: list[int]
    slots: dict[str, int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, template: int, vocabulary: Vocabulary, prefix: list[int]) -> _Frame:
        people = {person.name: person for person in PEOPLE}
        io, s = (people[name] for name in list(vocabulary.names)[:2])
        place, thing = next(iter(vocabulary.places)), next(iter(vocabulary.objects))
        prompt = ioi_prompt(io, s, template, "ABB", place, thing)
        encoded = tokenizer(prompt.text, return_offsets_mapping=True, add_special_tokens=False)
        ends = [end for _, end in encoded["offset_mapping"]]
        spans = {"IO": prompt.io_span, "S1": prompt.s1_span, "S2": prompt.s2_span, "END": prompt.end_span}
        stops = {role: span.end for role, span in spans.items()}
        for kind, word in (("place", prompt.place), ("object", prompt.object)):
            if word is not None:
                stops[kind] = prompt.text.rindex(f" {word}") + 1 + len(word)
        return cls(
            [*prefix, *encoded["input_ids"]], {role: len(prefix) + ends.index(stop) for role, stop in stops.items()}
        )


def _compose(
    frames: Mapping[int, _Frame], template: Int[Tensor, "n"], fill: Mapping[str, Int[Tensor, "n"]], words: Vocabulary
) -> Prompts:
    """Prompts in pattern ABB with places and objects filled in; IO and S are not yet theirs."""
    n, length = len(template), max(len(frame.ids) for frame in frames.values())
    ids = torch.zeros(n, length, dtype=torch.long)
    at = {role: torch.zeros(n, dtype=torch.long) for role in ROLES}
    for number, frame in frames.items():
        rows = (template == number).nonzero()[:, 0]
        ids[rows, : len(frame.ids)] = torch.tensor(frame.ids)
        for kind in fill.keys() & frame.slots.keys():
            ids[rows, frame.slots[kind]] = fill[kind][rows]
        for role in at.keys() & frame.slots.keys():
            at[role][rows] = frame.slots[role]
    at["S1+1"] = at["S1"] + 1
    gender = {person.name: int(person.gender == "male") for person in PEOPLE}
    zeros = torch.zeros(n, dtype=torch.long)
    return Prompts(
        ids=ids, at=at, io=zeros, s=zeros, pos=zeros, template=template, names=tuple(words.names),
        name_ids=torch.tensor(list(words.names.values())), gender=torch.tensor([gender[name] for name in words.names]),
    )  # fmt: skip


def _check_tokenization(tokenizer: PreTrainedTokenizerFast, prompts: Prompts, prefix: int) -> None:
    """Composed ids must be what the tokenizer makes of the text.

    Raises:
        UserError: they aren't, for this tokenizer.
    """
    for row, end in zip(prompts.ids[:_CHECKED], prompts.at["END"][:_CHECKED].tolist(), strict=True):
        ids = row[prefix : end + 1].tolist()
        text = tokenizer.decode(ids)
        if tokenizer(text, add_special_tokens=False)["input_ids"] != ids:
            raise UserError(f"the tokenizer cuts {text!r} differently inside a sentence; the task can't be built on it")
