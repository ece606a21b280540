"""Assembling typed words into a text: spaces, capitals, a/an, quotation marks, mentions, and every word's spans."""

from __future__ import annotations

from saelab.corpora.documents import Document, Span
from saelab.corpora.microworld.words import Person

_SENTENCE_MARKS = frozenset(".!?")
_MENTIONS = ("first_mention", "second_mention", "later_mention")


class Writer:
    """Takes words with their labels, one after the other; the text is never parsed again.

    Attributes for all following words: `extra` (labels that each of them carries besides its own).
    """

    def __init__(self) -> None:
        self.extra: tuple[str, ...] = ()
        self._parts: list[str] = []
        self._spans: list[Span] = []
        self._length = 0
        self._glue = True  # no space before the next word
        self._article: tuple[str, ...] | None = None  # labels of an "a" that waits for the next word's first letter
        self._in_quotes = False
        self._starts_sentence = True
        self._sentence: list[tuple[int, int]] = []  # the words since the sentence began
        self._mentions: dict[str, int] = {}

    def word(self, text: str, labels: tuple[str, ...]) -> None:
        """Append a word; a sentence's first letter becomes a capital."""
        if self._article is not None:
            article, self._article = self._article, None
            self._emit("an" if text[0] in "aeiou" and not text.startswith("one") else "a", article)
        self._emit(text, labels)

    def article(self, labels: tuple[str, ...] = ("determiner",)) -> None:
        """The indefinite article: "a" or "an", as the next word wants."""
        self._article = labels

    def name(self, person: Person, labels: tuple[str, ...] = ()) -> None:
        """Append a person's name, counting how often the document has mentioned it."""
        seen = self._mentions.get(person.name, 0)
        self._mentions[person.name] = seen + 1
        gender = "name_female" if person.gender == "female" else "name_male"
        self.word(person.name, ("noun", "name", gender, _MENTIONS[min(seen, 2)], *labels))

    def _emit(self, text: str, labels: tuple[str, ...]) -> None:
        if self._glue:
            self._glue = False
        else:
            self._parts.append(" ")
            self._length += 1
        start, end = self._length, self._length + len(text)
        spans = self._spans
        if self._starts_sentence:
            self._starts_sentence = False
            text = text[0].upper() + text[1:]
            spans.append(Span(start, end, "sentence_start"))
        for label in labels:
            spans.append(Span(start, end, label))
        for label in self.extra:
            spans.append(Span(start, end, label))
        if self._in_quotes:
            spans.append(Span(start, end, "in_quotes"))
        self._parts.append(text)
        self._length = end
        self._sentence.append((start, end))

    def suffix(self, text: str, labels: tuple[str, ...]) -> None:
        """Append to the last word without a space ("'s")."""
        self._attach(text, labels)

    def mark(self, text: str, labels: tuple[str, ...] = ()) -> None:
        """Append a punctuation mark to the last word; one of .!? ends the sentence, ? makes it a question."""
        ends = text in _SENTENCE_MARKS
        self._attach(text, ("punctuation", "sentence_end", *labels) if ends else ("punctuation", *labels))
        if ends:
            if text == "?":
                self._spans.extend(Span(start, end, "question") for start, end in self._sentence)
            self._sentence = []
            self._starts_sentence = True

    def _attach(self, text: str, labels: tuple[str, ...]) -> None:
        start, end = self._length, self._length + len(text)
        self._spans.extend(Span(start, end, label) for label in labels)
        self._spans.extend(Span(start, end, label) for label in self.extra)
        if self._in_quotes:
            self._spans.append(Span(start, end, "in_quotes"))
        self._parts.append(text)
        self._length = end

    def open_quote(self) -> None:
        """An opening quotation mark; what follows is a sentence of its own."""
        if not self._glue:
            self._parts.append(" ")
            self._length += 1
        self._attach('"', ("punctuation", "open_quote"))
        self._in_quotes = self._glue = self._starts_sentence = True
        self._sentence = []

    def close_quote(self, continues: bool) -> None:
        """A closing quotation mark; `continues`: the sentence around it goes on, whatever the quotation ended on."""
        self._in_quotes = False
        self._attach('"', ("punctuation", "close_quote"))
        self._sentence = []
        if continues:
            self._starts_sentence = False

    def newline(self, count: int = 1) -> None:
        """Start a new line (and sentence), after `count` line feeds."""
        self._parts.append("\n" * count)
        self._length += count
        self._glue = self._starts_sentence = True
        self._sentence = []

    @property
    def position(self) -> int:
        """Characters written so far."""
        return self._length

    def document(self) -> Document:
        """What has been written."""
        return Document("".join(self._parts), tuple(self._spans))
