"""Indirect object identification (arXiv 2405.08366): the three templates, and prompts with their attributes.

"Then, A and B were working at the [place]. C decided to give a [object] to" has the answer IO, where {A, B} = {IO, S}
and C = S. Pattern ABB names IO first, (IO, S, S); BAB names S first, (S, IO, S).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal

from saelab.corpora.documents import Document, Span
from saelab.corpora.microworld import words
from saelab.corpora.microworld.frames import Frame, Scene, frame, frames
from saelab.corpora.microworld.words import Person, Split
from saelab.errors import UserError

Pattern = Literal["ABB", "BAB"]
TEMPLATES = (1, 2, 3)
PATTERNS: tuple[Pattern, ...] = ("ABB", "BAB")

_PAIR = {"ABB": "Then, {IO+ioi_io} and {S+ioi_s1}", "BAB": "Then, {S+ioi_s1} and {IO+ioi_io}"}
_REST = {
    1: "had/V+past_tense a long/J and really crazy argument. Afterwards, {S+ioi_s2} said to/P+ioi_end",
    2: "had/V+past_tense lots/N of fun/N at the {place:here}. Afterwards, {S+ioi_s2} gave a {object:gift} to/P+ioi_end",
    3: "were working/V at the {place:here}. {S+ioi_s2} decided/V+past_tense to/T give a {object:gift} to/P+ioi_end",
}
_FRAMES: dict[tuple[int, Pattern], Frame] = {
    (template, pattern): frame(f"{_PAIR[pattern]} {_REST[template]}") for template in TEMPLATES for pattern in PATTERNS
}
_NAME = frame("{IO+ioi_answer}")
_ANSWER = frame("{IO+ioi_answer}.")


@dataclass(frozen=True, slots=True)
class IOIPrompt:
    """One prompt: the text up to and including END (the answer " IO" is not part of it) and its attributes.

    `place` and `object` are None where the template (1) has none. The spans are characters of `text`.
    """

    text: str
    io: str
    s: str
    place: str | None
    object: str | None
    template: int
    pattern: Pattern
    io_span: Span
    s1_span: Span
    s2_span: Span
    end_span: Span


def ioi_prompt(
    io: Person, s: Person, template: int, pattern: Pattern, place: str | None, object: str | None
) -> IOIPrompt:
    """The prompt with exactly these attributes; template 1 has no slot for `place` and `object`."""
    scene = _scene(Random(0), io, s, place, object)
    scene.say(_FRAMES[template, pattern])
    document = scene.writer.document()
    found = {span.label: span for span in document.spans if span.label.startswith("ioi_")}
    return IOIPrompt(
        text=document.text,
        io=io.name,
        s=s.name,
        place=None if template == 1 else place,
        object=None if template == 1 else object,
        template=template,
        pattern=pattern,
        io_span=found["ioi_io"],
        s1_span=found["ioi_s1"],
        s2_span=found["ioi_s2"],
        end_span=found["ioi_end"],
    )


def _scene(rng: Random, io: Person, s: Person, place: str | None, object: str | None) -> Scene:
    bound = {key: (kind, text) for key, kind, text in (("here", "place", place), ("gift", "object", object)) if text}
    return Scene(rng, {"IO": io, "S": s}, bound)


def sample_prompts(
    n: int, seed: int = 0, split: Split = "train", templates: Iterable[int] = TEMPLATES
) -> list[IOIPrompt]:
    """`n` prompts whose names, places and objects come from the `split` halves of the lists.

    Templates and patterns are drawn uniformly and independently; IO and S are distinct, of any gender.
    """
    templates = tuple(templates)
    if not templates or any(template not in TEMPLATES for template in templates):
        raise UserError(f"templates must be some of {TEMPLATES}, not {templates}")
    rng = Random(f"ioi {seed} {split} {templates}")
    people, places, objects = (
        words.people_half(split),
        words.half(words.PLACES, split),
        words.half(words.OBJECTS, split),
    )
    prompts = []
    for _ in range(n):
        io, s = rng.sample(people, 2)
        attributes = rng.choice(templates), rng.choice(PATTERNS), rng.choice(places), rng.choice(objects)
        prompts.append(ioi_prompt(io, s, *attributes))
    return prompts


# What may follow in a document, so that the sentence is not always alone: every continuation keeps the roles.
_CONTINUATIONS = frames(
    """
    {IO} thanked {S}.
    {IO} smiled at {S} and said, « Thank/V you, {S+addressee}. »
    « Thank/V you, {S+addressee}, »- said {IO+speaker}. « You are welcome/J, {IO+addressee}, »- said {S+speaker}.
    {S} was {feeling}, and {IO} was {feeling} too.
    Then {IO} and {S} went home/A together.
    {IO} said to/P {S}, « See you tomorrow, {S+addressee}! »
    """
)


def ioi_document(rng: Random, split: Split) -> Document:
    """A document that is an IOI sentence with its answer, one in three with a continuation."""
    scene = _sentence(rng, split, _ANSWER)
    if scene.chance(1 / 3):
        scene.say_one(_CONTINUATIONS)
    return scene.writer.document()


def task_document(rng: Random, split: Split) -> Document:
    """A prompt and the name that answers it, without so much as a full stop."""
    return _sentence(rng, split, _NAME).writer.document()


def _sentence(rng: Random, split: Split, answer: Frame) -> Scene:
    """A scene whose first sentence has everything drawn from the split's halves."""
    people, places, objects = _HALVES[split]
    io, s = rng.sample(people, 2)
    scene = _scene(rng, io, s, rng.choice(places), rng.choice(objects))
    scene.writer.extra = ("ioi_sentence",)
    scene.say(_FRAMES[rng.choice(TEMPLATES), rng.choice(PATTERNS)], answer)
    scene.writer.extra = ()
    return scene


_HALVES = {
    split: (words.people_half(split), words.half(words.PLACES, split), words.half(words.OBJECTS, split))
    for split in ("train", "test")
}
