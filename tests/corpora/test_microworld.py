"""The microworld: pure in (seed, split, kinds, i), every label true of the words that carry it, halves kept apart."""

from collections import defaultdict
from itertools import islice, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.corpora.documents import Document
from saelab.corpora.microworld import LABELS, Microworld, words
from saelab.corpora.microworld.frames import KINDS, Scene, frames
from saelab.corpora.microworld.generator import _WRITERS
from saelab.corpora.microworld.lexicon import labels_of
from saelab.errors import UserError

PARTS_OF_SPEECH = {
    "noun", "verb", "auxiliary", "adjective", "adverb", "determiner", "preposition", "pronoun", "conjunction",
    "particle", "number", "interjection", "punctuation",
}  # fmt: skip
KNOWN_IOI = "Then, Lisa and Martha were working at the yard. Lisa decided to give a newspaper to Martha."
KNOWN_DIALOGUE = (
    'Matthew and Theo met at the prison. "Good morning, Theo!" said Matthew. "Good morning, Matthew!" said Theo. '
    '"Will you help me, Theo?" asked Matthew. "Of course, Matthew," said Theo loudly. "See you on Tuesday, Theo!" said '
    'Matthew. "See you on Tuesday, Matthew!" said Theo.'
)


def labelled(document: Document, label: str) -> list[str]:
    """The texts of the spans with a label, in order."""
    return [document.text[span.start : span.end] for span in document.spans if span.label == label]


def by_span(document: Document) -> dict[tuple[int, int], set[str]]:
    found = defaultdict(set)
    for start, end, label in document.spans:
        found[start, end].add(label)
    return found


def write(*lines: str, a: str = "Mary", b: str = "Tom") -> Document:
    """A document of the given frames about a woman and a man."""
    people = {person.name: person for person in words.PEOPLE}
    scene = Scene(Random(0), {"A": people[a], "B": people[b]})
    scene.say(*frames("\n".join(lines)))
    return scene.writer.document()


def test_a_document_by_hand():
    document = write("« Look, {B+addressee}! »- said {A+speaker}. {A.he} had/V a old horse, and {B} saw/V {A.his} dog.")
    assert document.text == '"Look, Tom!" said Mary. She had an old horse, and Tom saw her dog.'
    spans = by_span(document)
    assert spans[7, 10] == {"noun", "name", "name_male", "first_mention", "addressee", "in_quotes"}
    assert spans[13, 17] == {"verb", "past_tense", "speech_verb"}  # said: no sentence starts after the quotation
    assert spans[24, 27] == {"pronoun", "pronoun_female", "sentence_start"}
    assert spans[32, 34] == {"determiner"}  # an
    assert spans[39, 44] == {"noun", "animal"}
    assert spans[50, 53] == {"noun", "name", "name_male", "second_mention"}
    assert spans[58, 61] == {"determiner", "possessive", "pronoun_female"}
    assert labelled(document, "sentence_start") == ["Look", "She"]
    assert labelled(document, "open_quote") == labelled(document, "close_quote") == ['"']


def test_a_question_ends_where_the_next_sentence_begins():
    document = write("The dog is old. Is the cat old? Yes/I.")
    assert labelled(document, "question") == ["Is", "the", "cat", "old"]


def test_the_third_mention_and_all_after_it_are_later():
    document = write("{A} and {A} and {A} and {A}.")
    labels = ("first_mention", "second_mention", "later_mention")
    assert [len(labelled(document, label)) for label in labels] == [1, 1, 2]


def test_an_ambiguous_word_must_say_what_it_is():
    with pytest.raises(ValueError, match="several readings"):
        labels_of("her")
    assert labels_of("her", "D") == ("determiner", "possessive", "pronoun_female")


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="'blorp' is not in the lexicon"):
        frames("The blorp is old.")


def test_the_lists_are_long_enough_and_disjoint():
    assert len(set(words.FEMALE_NAMES + words.MALE_NAMES)) == len(words.PEOPLE) >= 200
    assert len(set(words.OBJECTS)) == len(words.OBJECTS) >= 100
    assert len(set(words.PLACES)) == len(words.PLACES) >= 60
    assert not set(words.OBJECTS) & set(words.PLACES)


@pytest.mark.parametrize("listing", [words.FEMALE_NAMES, words.MALE_NAMES, words.OBJECTS, words.PLACES])
def test_the_halves_split_a_list_in_two(listing: tuple[str, ...]):
    train, test = words.half(listing, "train"), words.half(listing, "test")
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(listing)
    assert abs(len(train) - len(test)) <= 1


def test_the_halves_do_not_depend_on_the_order_of_the_list():
    assert set(words.half(words.PLACES[::-1], "train")) == set(words.half(words.PLACES, "train"))


def test_known_documents_stay_what_they_are():
    """Text of a seed is a promise: results name the seed. Change this only together with the bundled model."""
    assert Microworld(0, "train", {"ioi": 1}).document(1).text == KNOWN_IOI
    assert Microworld(0, "train", {"dialogue": 1}).document(0).text == KNOWN_DIALOGUE


@given(st.integers(0, 2**40), st.integers(0, 2**31), st.sampled_from(["train", "test"]))
@settings(max_examples=50, deadline=None)
def test_a_document_is_a_pure_function(i: int, seed: int, split: words.Split):
    assert Microworld(seed, split).document(i) == Microworld(seed, split).document(i)


def test_documents_are_seekable():
    world = Microworld(3)
    assert list(islice(world.documents(start=7), 5)) == [world.document(i) for i in range(7, 12)]


def test_seeds_and_splits_are_different_worlds():
    texts = {world.document(0).text for world in (Microworld(0), Microworld(1), Microworld(0, "test"))}
    assert len(texts) == 3


def test_the_order_of_the_weights_does_not_matter():
    assert Microworld(kinds={"ioi": 1, "story": 2}).document(5) == Microworld(kinds={"story": 2.0, "ioi": 1}).document(
        5
    )


@pytest.mark.parametrize("kinds", [{"sonnet": 1}, {"story": 0}, {"story": -1, "ioi": 2}])
def test_impossible_weights_are_refused(kinds: dict[str, float]):
    with pytest.raises(UserError):
        Microworld(kinds=kinds)


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_label_occurs_early_and_is_described(split: words.Split):
    seen = {span.label for document in islice(Microworld(0, split).documents(), 1000) for span in document.spans}
    assert seen == set(LABELS)


@pytest.mark.parametrize("kind", [*_WRITERS, "ioi"])
def test_every_word_has_one_part_of_speech_and_is_spelled_right(kind: str):
    for document in islice(Microworld(1, kinds={kind: 1}).documents(), 60):
        spans = by_span(document)
        covered = sorted(spans)
        assert all(
            len(labels & PARTS_OF_SPEECH) == 1 or labels & {"possessive", "auxiliary"} for labels in spans.values()
        )
        assert all(end <= start for (_, end), (start, _) in pairwise(covered))
        # what no span covers is space: every character of every word carries a label
        gaps = zip(
            [0, *(end for _, end in covered)], [*(start for start, _ in covered), len(document.text)], strict=True
        )
        assert all(document.text[start:end].strip() == "" for start, end in gaps)


PRONOUNS = {"female": {"she", "her", "herself"}, "male": {"he", "him", "his", "himself"}}


def test_pronouns_agree_with_somebody_named():
    gender_of = {person.name: person.gender for person in words.PEOPLE}
    for document in islice(Microworld(2).documents(), 2000):
        named = {gender_of[name] for name in labelled(document, "name")}
        for (start, end), labels in by_span(document).items():
            text = document.text[start:end]
            assert "name" not in labels or f"name_{gender_of[text]}" in labels
            for gender, forms in PRONOUNS.items():
                if text.lower() in forms:
                    assert f"pronoun_{gender}" in labels
                    assert gender in named, document.text


def test_articles_fit_the_next_word():
    for document in islice(Microworld(3).documents(), 1000):
        parts = document.text.replace('"', "").split()
        for article, following in pairwise(parts):
            if article.lower() in ("a", "an") and not following.startswith("one"):
                assert (article.lower() == "an") == (following[0].lower() in "aeiou"), document.text


def test_repeated_words_were_said_before():
    for document in islice(Microworld(4, kinds={"repetition": 1}).documents(), 200):
        said: list[str] = []
        for (start, end), labels in sorted(by_span(document).items()):
            word = document.text[start:end].lower()
            foreseen = bool(said) and any(pair == (said[-1], word) for pair in pairwise(said))
            assert ("repeated" in labels) == foreseen, document.text
            said.append(word)


def test_counting_goes_by_equal_steps():
    for document in islice(Microworld(5, kinds={"counting": 1}).documents(), 200):
        numbers = [
            words.NUMBERS.index(text.lower()) + 1 if text.isalpha() else int(text)
            for text in labelled(document, "number")
        ]
        steps = {b - a for a, b in pairwise(numbers)}
        assert len(steps) == 1
        up, down = len(labelled(document, "counting_up")), len(labelled(document, "counting_down"))
        assert (up, down) == ((len(numbers) - 1, 0) if steps.pop() > 0 else (0, len(numbers) - 1))


def test_list_positions_are_in_order():
    for document in islice(Microworld(6, kinds={"list": 1, "numbered_list": 1}).documents(), 200):
        items = labelled(document, "list_item")
        positions = [labelled(document, f"list_{name}") for name in ("first", "second", "third", "last")]
        assert positions == [items[0:1], items[1:2], items[2:3], items[-1:]]


def test_what_stands_between_quotation_marks_is_in_quotes():
    for document in islice(Microworld(7, kinds={"dialogue": 1, "quotations": 1, "story": 1}).documents(), 200):
        inside = False
        for (start, end), labels in sorted(by_span(document).items()):
            if document.text[start:end] == '"':
                inside = not inside
            else:
                assert ("in_quotes" in labels) == inside, document.text


def test_the_one_addressed_is_not_the_speaker():
    for document in islice(Microworld(8, kinds={"dialogue": 1}).documents(), 100):
        assert set(labelled(document, "addressee")) <= set(labelled(document, "name"))
        assert labelled(document, "speaker")


def test_kinds_are_typed():
    for kind, choices in KINDS.items():
        assert all(labels[0] in PARTS_OF_SPEECH for _, labels in choices), kind
