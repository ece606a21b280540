"""Labels of packed tokens."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from saelab.corpora import CorpusConfig, TokenPolicy, label_rows, pack
from saelab.corpora.microworld import LABELS
from saelab.errors import UserError


@pytest.fixture(scope="module")
def bytes_tokenizer(tiny_model: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(tiny_model)


def test_labels_follow_the_text_over_row_and_document_borders(bytes_tokenizer: PreTrainedTokenizerFast):
    """With one token per byte, the tokens labelled punctuation must be the punctuation marks."""
    corpus = CorpusConfig(seed=1)
    rows = next(pack(corpus, bytes_tokenizer, TokenPolicy(context=50), rows=40))
    labels = label_rows(rows, corpus, bytes_tokenizer)
    assert labels.shape == (40, 50, len(LABELS))
    marks = labels[..., list(LABELS).index("punctuation")]
    decoded = bytes_tokenizer.decode(rows.ids[marks])
    assert decoded
    assert not any(c.isalnum() for c in decoded)
    full_stops = rows.ids == bytes_tokenizer.convert_tokens_to_ids(".")
    assert marks[full_stops].float().mean() > 0.95


def test_separators_carry_no_label(bytes_tokenizer: PreTrainedTokenizerFast):
    corpus = CorpusConfig()
    for rows in islice(pack(corpus, bytes_tokenizer, TokenPolicy(context=64, bos=True), rows=8), 3):
        assert not label_rows(rows, corpus, bytes_tokenizer)[rows.offsets < 0].any()


def test_prompts_of_ioi_are_labelled_and_their_padding_is_not(bytes_tokenizer: PreTrainedTokenizerFast):
    corpus = CorpusConfig(source="ioi", split="test")
    policy = TokenPolicy(context=120, cross_documents=False, pad=True)
    rows = next(pack(corpus, bytes_tokenizer, policy, rows=20))
    labels = label_rows(rows, corpus, bytes_tokenizer)
    assert not labels[~rows.real].any()
    answers = labels[..., list(LABELS).index("ioi_answer")]
    assert answers.any(1).all()
    for row, real, answer in zip(rows.ids, rows.real, answers, strict=True):
        text = str(bytes_tokenizer.decode(row[real], skip_special_tokens=True))
        assert text.endswith(str(bytes_tokenizer.decode(row[answer])).strip())
        assert answer[real][-1]


def test_other_corpora_have_no_labels(bytes_tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    (tmp_path / "text.txt").write_text("Once upon a time there was a corpus without labels.")
    corpus = CorpusConfig(source=str(tmp_path / "text.txt"), held_out=1e-9)
    rows = next(pack(corpus, bytes_tokenizer, TokenPolicy(context=16), rows=2))
    with pytest.raises(UserError, match="has no labels"):
        label_rows(rows, corpus, bytes_tokenizer)
