"""Rows of tokens: worked out by hand, and the same wherever one stops and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from saelab.corpora import CorpusConfig, Cursor, TokenPolicy, TokenRows, pack
from saelab.errors import UserError

# Nothing is held out: the smallest share that a config takes leaves these few documents all in "train".
ALL = 1e-9


def corpus_of(path: Path, texts: list[str]) -> CorpusConfig:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return CorpusConfig(source=str(path), held_out=ALL)


@pytest.fixture
def three(tmp_path: Path) -> CorpusConfig:
    return corpus_of(tmp_path / "three.jsonl", ["a b c", "d", "e f g h"])


def rows_of(*arguments: object, **options: object) -> TokenRows:
    (rows,) = pack(*arguments, **options)  # type: ignore[arg-type]
    return rows


def test_documents_run_on_with_a_separator_before_each(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    rows = rows_of(three, eos_tokenizer, TokenPolicy(context=4))
    # stream: <sep> a b c · <sep> d · <sep> e f g h = 0 1 2 3 0 4 0 5 6 7 8; two rows of 4, three tokens left over
    assert rows.ids.tolist() == [[0, 1, 2, 3], [0, 4, 0, 5]]
    assert rows.documents.tolist() == [[0, 0, 0, 0], [1, 1, 2, 2]]
    assert rows.offsets.tolist() == [[-1, 0, 1, 2], [-1, 0, -1, 0]]


def test_without_special_tokens_nothing_separates(three: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast):
    rows = rows_of(three, plain_tokenizer, TokenPolicy(context=4))
    assert rows.ids.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_keep_leaves_out_first_positions_and_special_tokens(
    three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast
):
    rows = rows_of(three, eos_tokenizer, TokenPolicy(context=4, exclude_first=1))
    assert rows.keep.tolist() == [[False, True, True, True], [False, True, False, True]]


def test_keep_can_keep_everything(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    rows = rows_of(three, eos_tokenizer, TokenPolicy(context=4, exclude_first=0, exclude_special=False))
    assert rows.keep.all()


def test_bos_opens_every_row_and_is_not_doubled(three: CorpusConfig, bos_tokenizer: PreTrainedTokenizerFast):
    rows = rows_of(three, bos_tokenizer, TokenPolicy(context=4, bos=True))
    # Row 1 takes "a b c" after its own BOS (the document's is dropped), row 2 "d <sep> e", row 3 "f g h".
    assert rows.ids.tolist() == [[0, 1, 2, 3], [0, 4, 0, 5], [0, 6, 7, 8]]
    assert rows.documents.tolist() == [[0, 0, 0, 0], [1, 1, 2, 2], [2, 2, 2, 2]]
    assert rows.offsets.tolist() == [[-1, 0, 1, 2], [-1, 0, -1, 0], [-1, 1, 2, 3]]


def test_bos_needs_a_tokenizer_that_has_one(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(UserError, match=r"policy\.bos"):
        next(pack(three, eos_tokenizer, TokenPolicy(context=4, bos=True)))


def test_rows_can_stay_inside_documents(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    rows = rows_of(three, eos_tokenizer, TokenPolicy(context=4, cross_documents=False))
    # <sep> a b c fills a row; <sep> d does not; <sep> e f g does, h is left out
    assert rows.ids.tolist() == [[0, 1, 2, 3], [0, 5, 6, 7]]
    assert rows.documents.tolist() == [[0] * 4, [2] * 4]


def test_documents_too_short_for_a_row_of_their_own(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(UserError, match="fewer than 6 tokens in any one document"):
        next(pack(three, eos_tokenizer, TokenPolicy(context=6, cross_documents=False)))


def test_a_corpus_shorter_than_a_row_is_refused(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(UserError, match=r"fewer than 12 tokens.*policy\.context"):
        next(pack(three, eos_tokenizer, TokenPolicy(context=12)))


def test_the_cursor_names_the_next_token(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    first, second = pack(three, eos_tokenizer, TokenPolicy(context=4), rows=1)
    assert (first.start, first.next) == (Cursor(), Cursor(document=1, token=0, row=1))
    assert second.next == Cursor(document=2, token=2, row=2)  # <sep> and e of document 2 are used


def test_repeat_gives_the_same_rows_again(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    endless = pack(three, eos_tokenizer, TokenPolicy(context=4), rows=2, repeat=True)
    first, second = next(endless), next(endless)
    assert torch.equal(first.ids, second.ids)
    assert second.start == Cursor(row=2, epoch=1)


documents = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9).map(" ".join), min_size=3, max_size=12)


@settings(deadline=None, max_examples=40)
@given(
    texts=documents,
    context=st.integers(2, 7),
    bos=st.booleans(),
    cross=st.booleans(),
    rows=st.integers(1, 3),
    stop=st.integers(0, 9),
)
def test_going_on_from_a_cursor_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    bos_tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    context: int,
    bos: bool,
    cross: bool,
    rows: int,
    stop: int,
):
    corpus = corpus_of(tmp_path_factory.mktemp("pack") / "text.jsonl", [*texts, "a b c d e f g h a b c d"])
    policy = TokenPolicy(context=context, bos=bos, cross_documents=cross)
    whole = list(pack(corpus, bos_tokenizer, policy, rows))
    stop = min(stop, len(whole) - 1)
    rest = list(pack(corpus, bos_tokenizer, policy, rows, cursor=whole[stop].start))
    for expected, found in zip(whole[stop:], rest, strict=True):
        assert torch.equal(expected.ids, found.ids)
        assert torch.equal(expected.documents, found.documents)
        assert torch.equal(expected.offsets, found.offsets)
        assert expected.next == found.next


@settings(deadline=None, max_examples=40)
@given(texts=documents, context=st.integers(2, 6))
def test_rows_are_the_token_stream_cut_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, eos_tokenizer: PreTrainedTokenizerFast, texts: list[str], context: int
):
    texts = [*texts, "a b c d e f"]
    corpus = corpus_of(tmp_path_factory.mktemp("pack") / "text.jsonl", texts)
    packed = torch.cat([rows.ids for rows in pack(corpus, eos_tokenizer, TokenPolicy(context=context), 2)])
    stream = [i for text in texts if text for i in (0, *(" abcdefgh".index(word) for word in text.split()))]
    assert packed.flatten().tolist() == stream[: len(stream) // context * context]
