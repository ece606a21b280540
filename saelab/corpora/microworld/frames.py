"""Sentence frames: a small notation for typed sentences, compiled once and filled from a scene.

    « Look, {B+addressee}! »- said {A+speaker}.   {A.he} found a {colour} {object:toy} for {B.him}.

- a plain word is looked up in the lexicon; `her/D` gives its part of speech (`lexicon.TAGS`), `said+label` adds labels;
- `{A}` is a person of the scene, `{A.he} {A.him} {A.his} {A.himself}` the pronoun that agrees, `{A}'s` the possessive;
- `{object}` is a fresh word of that kind, `{object:toy}` is the same word wherever the scene says `toy`;
- `« »` are quotation marks; `»-` says that the sentence around the quotation goes on; `a` becomes "an" where it must;
- `|` starts a new line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from saelab.corpora.microworld import words
from saelab.corpora.microworld.lexicon import Labels, labels_of
from saelab.corpora.microworld.words import Person
from saelab.corpora.microworld.writer import Writer

_PRONOUNS = {
    "he": {"female": ("she", labels_of("she")), "male": ("he", labels_of("he"))},
    "him": {"female": ("her", labels_of("her", "R")), "male": ("him", labels_of("him"))},
    "his": {"female": ("her", labels_of("her", "D")), "male": ("his", labels_of("his"))},
    "himself": {"female": ("herself", labels_of("herself")), "male": ("himself", labels_of("himself"))},
}


def _singular(pairs: tuple[tuple[str, str], ...], *labels: str) -> list[tuple[str, Labels]]:
    return [(singular, ("noun", *labels)) for singular, _ in pairs]


def _plural(pairs: tuple[tuple[str, str], ...], *labels: str) -> list[tuple[str, Labels]]:
    return [(plural, ("noun", "plural", *labels)) for _, plural in pairs]


def _all(listing: tuple[str, ...], *labels: str) -> list[tuple[str, Labels]]:
    return [(word, labels) for word in listing]


_QUALITIES = _all(words.QUALITIES, "adjective")
_SIZES = _all(words.SIZES, "adjective", "size")
_COLOURS = _all(words.COLOURS, "adjective", "colour")
_MOTIONS = _all(words.MOTIONS, "verb", "past_tense", "motion_verb")

KINDS: dict[str, list[tuple[str, Labels]]] = {
    "object": _all(words.OBJECTS, "noun", "object"),
    "place": _all(words.PLACES, "noun", "place"),
    "animal": _singular(words.ANIMALS, "animal"),
    "animals": _plural(words.ANIMALS, "animal"),
    "food": _singular(words.FOODS, "food"),
    "foods": _plural(words.FOODS, "food"),
    "thing": _singular(words.THINGS),
    "things": _plural(words.THINGS),
    "role": _singular(words.ROLES, "profession"),
    "roles": _plural(words.ROLES, "profession"),
    "body": _all(words.BODY_PARTS, "noun", "body_part"),
    "colour": _COLOURS,
    "size": _SIZES,
    "adj": _QUALITIES * 2 + _SIZES + _COLOURS,
    "quality": _QUALITIES,
    "feeling": _all(words.FEELINGS, "adjective", "feeling"),
    "comparative": _all(words.COMPARATIVES, "adjective", "comparative"),
    "weather": _all(words.WEATHER, "adjective", "weather"),
    "acted": _all(words.ACTIONS, "verb", "past_tense"),
    "moved": _MOTIONS,
    "verbed": _all(words.TRANSITIVES, "verb", "past_tense"),
    "said": _all(words.SPEECH, "verb", "past_tense", "speech_verb"),
    "manner": _all(words.MANNERS, "adverb"),
    "number": _all(words.NUMBERS[1:12], "number"),
    "ordinal": _all(words.ORDINALS, "adjective"),
    "weekday": _all(words.WEEKDAYS, "noun", "date_weekday"),
    "month": _all(words.MONTHS, "noun", "date_month"),
    "season": _all(words.SEASONS, "noun", "season"),
    "daypart": _all(words.DAY_PARTS[:3], "noun", "time_of_day"),
    "subject": _all(words.SUBJECTS, "noun"),
    "mother": _all(words.FAMILY["female"], "noun", "family"),
    "father": _all(words.FAMILY["male"], "noun", "family"),
}

_LABELS_BY_KIND = {kind: dict(choices) for kind, choices in KINDS.items()}


class Scene:
    """One document in the making: its writer, its generator of chance, its people, and what it has named so far."""

    def __init__(
        self, rng: Random, people: Mapping[str, Person], bound: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        self.rng = rng
        self.people = people
        self.writer = Writer()
        self.words: dict[str, tuple[str, Labels]] = {}
        for key, (kind, text) in (bound or {}).items():
            self.words[key] = (text, _LABELS_BY_KIND[kind][text])

    def pick(self, kind: str, key: str = "") -> tuple[str, Labels]:
        """A word of a kind; the same one for the same key. Two keys of one kind never name the same word."""
        if key and key in self.words:
            return self.words[key]
        choices = KINDS[kind]
        word = choices[int(self.rng.random() * len(choices))]
        if key:
            taken = {text for text, _ in self.words.values()}
            while word[0] in taken:
                word = choices[int(self.rng.random() * len(choices))]
            self.words[key] = word
        return word

    def say(self, *frames: Frame) -> None:
        """Write frames one after the other."""
        for frame in frames:
            for step in frame:
                step(self)

    def say_one(self, frames: list[Frame]) -> None:
        """Write one of the frames."""
        self.say(frames[int(self.rng.random() * len(frames))])

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability


Step = Callable[[Scene], None]
Frame = list[Step]


def frames(text: str) -> list[Frame]:
    """Compile one frame per non-empty line of `text`. Raises ValueError for a word whose labels are not known."""
    return [_compile(line) for line in text.strip().splitlines() if line.strip()]


def frame(text: str) -> Frame:
    """Compile one frame."""
    return _compile(text)


def _compile(line: str) -> Frame:
    steps: Frame = []
    for chunk in line.split():
        while chunk.startswith("«"):
            steps.append(lambda scene: scene.writer.open_quote())
            chunk = chunk[1:]
        marks: Frame = []
        while chunk and (chunk[-1] in ".,!?:;»" or chunk.endswith("»-")):
            if chunk[-1] in "»-":
                cut = 2 if chunk[-1] == "-" else 1
                marks.append(_close(continues=cut == 2))
                chunk = chunk[:-cut]
            else:
                marks.append(_mark(chunk[-1]))
                chunk = chunk[:-1]
        if chunk == "|":
            steps.append(lambda scene: scene.writer.newline())
        elif chunk:
            steps.extend(_slot(chunk) if chunk.startswith("{") else _word(chunk))
        steps.extend(reversed(marks))
    return steps


def _close(continues: bool) -> Step:
    return lambda scene: scene.writer.close_quote(continues)


def _mark(text: str) -> Step:
    return lambda scene: scene.writer.mark(text)


def _word(chunk: str) -> Frame:
    chunk, *extra = chunk.split("+")
    text, _, tag = chunk.partition("/")
    if text.endswith(("'s", "n't")):
        return _contraction(text)
    text = text if text == "I" else _uncapitalised(text)
    labels = (*labels_of(text, tag), *extra)
    if text == "a":
        return [lambda scene: scene.writer.article(labels)]
    return [lambda scene: scene.writer.word(text, labels)]


def _uncapitalised(text: str) -> str:
    proper = text in words.WEEKDAYS or text in words.MONTHS
    return text if proper else text[0].lower() + text[1:]


def _contraction(text: str) -> Frame:
    if text.endswith("n't"):
        stem = _uncapitalised(text[:-3])
        labels = (*labels_of(stem, "X"), "negation")
        return [lambda scene: scene.writer.word(stem + "n't", labels)]
    stem = _uncapitalised(text[:-2])
    return [*_word(stem), lambda scene: scene.writer.suffix("'s", ("auxiliary",))]


def _slot(chunk: str) -> Frame:
    body, _, rest = chunk[1:].partition("}")
    body, *extra = body.split("+")
    extra = tuple(extra)
    step = _person(body, extra) if body[0].isupper() else _fresh(body, extra)
    if rest == "'s":
        return [step, lambda scene: scene.writer.suffix("'s", ("possessive",))]
    if rest:
        raise ValueError(f"'{rest}' after the slot {{{body}}} is not understood")
    return [step]


def _person(body: str, extra: Labels) -> Step:
    key, _, form = body.partition(".")
    if not form:
        return lambda scene: scene.writer.name(scene.people[key], extra)
    pronouns = _PRONOUNS[form]

    def pronoun(scene: Scene) -> None:
        text, labels = pronouns[scene.people[key].gender]
        scene.writer.word(text, labels + extra)

    return pronoun


def _fresh(body: str, extra: Labels) -> Step:
    kind, _, key = body.partition(":")
    if kind not in KINDS:
        raise ValueError(f"no kind of word is called '{kind}'; there are {', '.join(KINDS)}")

    def fresh(scene: Scene) -> None:
        text, labels = scene.pick(kind, key)
        scene.writer.word(text, labels + extra)

    return fresh
