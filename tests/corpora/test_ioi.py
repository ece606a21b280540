"""The IOI templates word for word, the attributes of prompts, and the halves that must not mix."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.corpora import CorpusConfig, is_endless, numbered_documents
from saelab.corpora.microworld import Microworld, words
from saelab.corpora.microworld.ioi import PATTERNS, TEMPLATES, IOIPrompt, ioi_prompt, sample_prompts
from saelab.corpora.microworld.words import Person
from saelab.errors import UserError

MARY, TOM = Person("Mary", "female"), Person("Tom", "male")


@pytest.mark.parametrize(
    ("template", "pattern", "text"),
    [
        (1, "ABB", "Then, Mary and Tom had a long and really crazy argument. Afterwards, Tom said to"),
        (1, "BAB", "Then, Tom and Mary had a long and really crazy argument. Afterwards, Tom said to"),
        (2, "ABB", "Then, Mary and Tom had lots of fun at the park. Afterwards, Tom gave a ball to"),
        (2, "BAB", "Then, Tom and Mary had lots of fun at the park. Afterwards, Tom gave a ball to"),
        (3, "ABB", "Then, Mary and Tom were working at the park. Tom decided to give a ball to"),
        (3, "BAB", "Then, Tom and Mary were working at the park. Tom decided to give a ball to"),
    ],
)
def test_the_templates_word_for_word(template: int, pattern: str, text: str):
    assert ioi_prompt(MARY, TOM, template, pattern, "park", "ball").text == text  # type: ignore[arg-type]


def spelled(prompt: IOIPrompt) -> list[str]:
    spans = (prompt.io_span, prompt.s1_span, prompt.s2_span, prompt.end_span)
    return [prompt.text[span.start : span.end] for span in spans]


@given(st.integers(0, 2**31), st.sampled_from(["train", "test"]))
@settings(max_examples=25, deadline=None)
def test_spans_and_attributes_agree_with_the_text(seed: int, split: words.Split):
    for prompt in sample_prompts(4, seed, split):
        assert spelled(prompt) == [prompt.io, prompt.s, prompt.s, "to"]
        assert prompt.end_span.end == len(prompt.text)
        assert (prompt.io_span.start < prompt.s1_span.start) == (prompt.pattern == "ABB")
        assert prompt.io != prompt.s
        assert (prompt.place is None) == (prompt.object is None) == (prompt.template == 1)
        assert prompt.place is None or f" at the {prompt.place}." in prompt.text
        assert prompt.object is None or prompt.text.endswith(f" a {prompt.object} to")


def test_prompts_are_a_pure_function_of_the_seed():
    assert sample_prompts(20, 5) == sample_prompts(20, 5)
    assert sample_prompts(20, 5) != sample_prompts(20, 6)


def test_only_the_templates_asked_for():
    assert {prompt.template for prompt in sample_prompts(50, templates=(1, 3))} == {1, 3}


def test_all_templates_and_patterns_occur():
    found = {(prompt.template, prompt.pattern) for prompt in sample_prompts(200)}
    assert found == {(template, pattern) for template in TEMPLATES for pattern in PATTERNS}


@pytest.mark.parametrize("templates", [(), (4,)])
def test_unknown_templates_are_refused(templates: tuple[int, ...]):
    with pytest.raises(UserError, match="templates must be some of"):
        sample_prompts(1, templates=templates)


@pytest.mark.parametrize("split", ["train", "test"])
def test_prompts_keep_to_their_half(split: words.Split):
    names = {person.name for person in words.people_half(split)}
    places, objects = words.half(words.PLACES, split), words.half(words.OBJECTS, split)
    for prompt in sample_prompts(500, 1, split):
        assert {prompt.io, prompt.s} <= names
        assert prompt.place is None or prompt.place in places
        assert prompt.object is None or prompt.object in objects


@pytest.mark.parametrize("split", ["train", "test"])
def test_documents_with_ioi_sentences_keep_to_their_half(split: words.Split):
    names = {person.name for person in words.people_half(split)}
    other_names_elsewhere = False
    for document in islice(Microworld(0, split).documents(), 1500):
        labels = {span.label for span in document.spans}
        named = {document.text[span.start : span.end] for span in document.spans if span.label == "name"}
        if "ioi_sentence" in labels:
            assert named <= names
        other_names_elsewhere |= not named <= names
    assert other_names_elsewhere  # the other half is learned, from the other kinds


def test_an_ioi_document_is_its_prompt_and_the_answer():
    for document in islice(Microworld(0, kinds={"ioi": 1}).documents(), 100):
        found = {span.label: span for span in document.spans if span.label.startswith("ioi_")}
        text = {label: document.text[span.start : span.end] for label, span in found.items()}
        assert text["ioi_answer"] == text["ioi_io"] != text["ioi_s2"] == text["ioi_s1"]
        assert found["ioi_answer"].start == found["ioi_end"].end + 1
        answer = {span.label for span in document.spans if span[:2] == found["ioi_answer"][:2]}
        assert "second_mention" in answer


def corpus_texts(n: int, start: int = 0, **options: object) -> list[str]:
    corpus = CorpusConfig(source="ioi", **options)  # type: ignore[arg-type]
    return [document.text for _, document in islice(numbered_documents(corpus, start), n)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_corpus_is_prompts_of_its_split_with_their_answers(split: words.Split):
    places, objects = words.half(words.PLACES, split), words.half(words.OBJECTS, split)
    people = {person.name: person for person in words.people_half(split)}
    shapes = set()
    for _, document in islice(numbered_documents(CorpusConfig(source="ioi", split=split)), 300):
        at = {span.label: document.text[span.start : span.end] for span in document.spans}
        template = 1 if "place" not in at else 2 if "lots of fun" in document.text else 3
        spans = {span.label: span for span in document.spans}
        pattern = "ABB" if spans["ioi_io"].start < spans["ioi_s1"].start else "BAB"
        assert at.get("place", places[0]) in places
        assert at.get("object", objects[0]) in objects
        prompt = ioi_prompt(people[at["ioi_io"]], people[at["ioi_s1"]], template, pattern, at.get("place"),
                            at.get("object"))  # fmt: skip
        assert document.text == f"{prompt.text} {prompt.io}"
        shapes.add((template, pattern))
    assert shapes == {(template, pattern) for template in TEMPLATES for pattern in PATTERNS}


def test_the_corpus_is_seeded_and_read_from_any_document():
    assert is_endless(CorpusConfig(source="ioi"))
    assert corpus_texts(30)[20:] == corpus_texts(10, start=20)
    assert corpus_texts(10) != corpus_texts(10, seed=1)
    assert not set(corpus_texts(200)) & set(corpus_texts(200, split="test"))
