"""Rows of tokens: worked out by hand, and the same wherever one stops and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from saelab.corpora import CorpusConfig, Cursor, Reason, TokenPolicy, TokenRows, leftover, pack
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


def test_each_position_left_out_has_a_reason(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    policy = TokenPolicy(context=4, cross_documents=False, pad=True, exclude_first=2)
    rows = rows_of(three, eos_tokenizer, policy)
    # <sep> a b c · <sep> d · <sep> e f g · h: separators stand at first positions, and padding is padding everywhere
    first, padding = Reason.FIRST, Reason.PADDING
    assert rows.excluded.tolist() == [[first, first, 0, 0], [first, first, padding, padding], [first, first, 0, 0],
                                      [first, padding, padding, padding]]  # fmt: skip
    assert rows.counts() == {"padding": 5, "first": 7, "special": 0, "sink": 0, "sampled": 0}
    assert rows_of(three, eos_tokenizer, TokenPolicy(context=4)).counts()["special"] == 1  # the third, within a row


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


def test_padding_fills_up_the_rows_of_single_documents(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    rows = rows_of(three, eos_tokenizer, TokenPolicy(context=4, cross_documents=False, pad=True, exclude_special=False))
    # <sep> a b c fills a row; <sep> d and the h of the third document are filled up with the separator
    assert rows.ids.tolist() == [[0, 1, 2, 3], [0, 4, 0, 0], [0, 5, 6, 7], [8, 0, 0, 0]]
    assert rows.documents.tolist() == [[0] * 4, [1] * 4, [2] * 4, [2] * 4]
    assert rows.offsets.tolist() == [[-1, 0, 1, 2], [-1, 0, -2, -2], [-1, 0, 1, 2], [3, -2, -2, -2]]
    assert rows.real.tolist() == [[True] * 4, [True, True, False, False], [True] * 4, [True, False, False, False]]
    assert rows.keep.tolist() == [[False, True, True, True], [False, True, False, False], [False, True, True, True],
                                  [False] * 4]  # fmt: skip
    assert rows.n_kept == 7
    assert rows.next == Cursor(document=3, token=0, row=4)


def test_padding_with_bos(three: CorpusConfig, bos_tokenizer: PreTrainedTokenizerFast):
    rows = rows_of(three, bos_tokenizer, TokenPolicy(context=5, bos=True, cross_documents=False, pad=True))
    assert rows.ids.tolist() == [[0, 1, 2, 3, 0], [0, 4, 0, 0, 0], [0, 5, 6, 7, 8]]
    assert rows.real.tolist() == [[True] * 4 + [False], [True, True, False, False, False], [True] * 5]


def test_padding_across_documents_is_refused():
    with pytest.raises(ValueError, match="set cross_documents to false"):
        TokenPolicy(context=4, pad=True)


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


def test_text_that_fills_no_row_is_counted(three: CorpusConfig, eos_tokenizer: PreTrainedTokenizerFast):
    first, second = pack(three, eos_tokenizer, TokenPolicy(context=4, cross_documents=False), rows=1)
    assert (first.dropped, second.dropped) == (0, 1)  # d, without the separator before it
    assert leftover(three, eos_tokenizer, TokenPolicy(context=4, cross_documents=False), second.next) == 1  # h
    assert leftover(three, eos_tokenizer, TokenPolicy(context=4), Cursor(document=2, token=2, row=2)) == 3  # f g h
    with pytest.raises(ValueError, match="rows behind this place"):
        leftover(three, eos_tokenizer, TokenPolicy(context=4))


def test_a_limit_cuts_the_last_chunk(three: CorpusConfig, bos_tokenizer: PreTrainedTokenizerFast):
    policy = TokenPolicy(context=4, bos=True)
    first, second = pack(three, bos_tokenizer, policy, rows=2, limit=3)
    assert (len(first), len(second)) == (2, 1)
    assert [len(chunk) for chunk in pack(three, bos_tokenizer, policy, rows=2, limit=4, repeat=True)] == [2, 1, 1]
    (only,) = pack(three, bos_tokenizer, policy, rows=2, limit=1)
    assert only.next == Cursor(document=1, row=1)


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
    cross=st.sampled_from(["cross_documents", "within", "pad"]),
    rows=st.integers(1, 3),
    stop=st.integers(0, 9),
)
def test_going_on_from_a_cursor_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    bos_tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    context: int,
    bos: bool,
    cross: str,
    rows: int,
    stop: int,
):
    corpus = corpus_of(tmp_path_factory.mktemp("pack") / "text.jsonl", [*texts, "a b c d e f g h a b c d"])
    policy = TokenPolicy(context=context, bos=bos, cross_documents=cross == "cross_documents", pad=cross == "pad")
    whole = list(pack(corpus, bos_tokenizer, policy, rows))
    stop = min(stop, len(whole) - 1)
    rest = list(pack(corpus, bos_tokenizer, policy, rows, cursor=whole[stop].start))
    for expected, found in zip(whole[stop:], rest, strict=True):
        assert torch.equal(expected.ids, found.ids)
        assert torch.equal(expected.documents, found.documents)
        assert torch.equal(expected.offsets, found.offsets)
        assert torch.equal(expected.keep, found.keep)
        assert expected.next == found.next


@settings(deadline=None, max_examples=40)
@given(texts=documents, context=st.integers(2, 7), bos=st.booleans(), cross=st.sampled_from(["cross", "within", "pad"]))
def test_every_token_of_text_is_in_a_row_or_counted(
    tmp_path_factory: pytest.TempPathFactory,
    bos_tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    context: int,
    bos: bool,
    cross: str,
):
    texts = [*texts, "a b c d e f g h a b c d"]
    corpus = corpus_of(tmp_path_factory.mktemp("pack") / "text.jsonl", texts)
    policy = TokenPolicy(context=context, bos=bos, cross_documents=cross == "cross", pad=cross == "pad")
    rows = list(pack(corpus, bos_tokenizer, policy, rows=1))
    in_rows = sum(int((row.offsets >= 0).sum()) for row in rows)
    dropped = sum(row.dropped for row in rows)
    left = leftover(corpus, bos_tokenizer, policy, rows[-1].next)
    assert in_rows + dropped + left == sum(len(text.split()) for text in texts)
    assert cross == "within" or dropped == 0
    assert cross != "pad" or left == 0


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


@settings(deadline=None, max_examples=40)
@given(texts=documents, context=st.integers(2, 7), bos=st.booleans(), rows=st.integers(1, 3))
def test_padding_loses_no_token_of_any_document(
    tmp_path_factory: pytest.TempPathFactory,
    bos_tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    context: int,
    bos: bool,
    rows: int,
):
    corpus = corpus_of(tmp_path_factory.mktemp("pack") / "text.jsonl", [*texts, "a"])
    policy = TokenPolicy(context=context, bos=bos, cross_documents=False, pad=True)
    found: dict[int, list[int]] = {}
    for chunk in pack(corpus, bos_tokenizer, policy, rows):
        assert not (chunk.keep & ~chunk.real).any()
        for ids, numbers, offsets in zip(chunk.ids, chunk.documents, chunk.offsets, strict=True):
            assert numbers.unique().numel() == 1
            assert torch.equal(offsets == -2, (offsets == -2).cummax(0).values)  # padding is on the right
            text = found.setdefault(int(numbers[0]), [])
            assert offsets[offsets >= 0].tolist() == [*range(len(text), len(text) + int((offsets >= 0).sum()))]
            text += ids[offsets >= 0].tolist()
    wanted = {i: [" abcdefgh".index(word) for word in text.split()] for i, text in enumerate([*texts, "a"]) if text}
    assert found == wanted
