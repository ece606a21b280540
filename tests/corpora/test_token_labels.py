"""Labels of tokens from labels of characters."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.corpora.documents import Document, Span
from saelab.corpora.microworld import LABELS, Microworld
from saelab.corpora.microworld.tokens import LABEL_NAMES, token_labels


def names_of(row: np.ndarray) -> set[str]:
    return {LABEL_NAMES[column] for column in np.flatnonzero(row)}


def test_by_hand():
    #               0123456789
    document = Document("Mary ran.", (Span(0, 4, "name"), Span(5, 8, "verb"), Span(8, 9, "punctuation")))
    #          "Ma"    "ry"    " ran"  "."     end of text
    offsets = [(0, 2), (2, 4), (4, 8), (8, 9), (9, 9)]
    found = [names_of(row) for row in token_labels(document, offsets)]
    assert found == [{"name"}, {"name"}, {"verb"}, {"punctuation"}, set()]


def test_a_token_over_two_words_has_both_labels():
    document = Document("Mary ran", (Span(0, 4, "name"), Span(5, 8, "verb")))
    assert [names_of(row) for row in token_labels(document, [(0, 3), (3, 7), (7, 8)])] == [
        {"name"},
        {"name", "verb"},
        {"verb"},
    ]


def test_a_token_of_spaces_has_none_even_inside_a_span():
    document = Document("a  b", (Span(0, 4, "in_quotes"),))
    found = token_labels(document, [(0, 1), (1, 2), (2, 4)])
    assert found.any(axis=1).tolist() == [True, False, True]


def test_shapes_without_tokens_or_spans():
    assert token_labels(Document("a"), []).shape == (0, len(LABELS))
    assert not token_labels(Document("a"), [(0, 1)]).any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.data())
def test_equals_the_definition_for_any_tokens(i: int, data: st.DataObject):
    document = Microworld(9).document(i)
    text = document.text
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=60)) | {0, len(text)})
    offsets = list(itertools.pairwise(cuts))
    found = token_labels(document, offsets)
    for (start, end), row in zip(offsets, found, strict=True):
        filled = {position for position in range(start, end) if not text[position].isspace()}
        wanted = set()
        if filled:
            trimmed = range(min(filled), max(filled) + 1)
            wanted = {span.label for span in document.spans if span.start < trimmed.stop and trimmed.start < span.end}
        assert names_of(row) == wanted
