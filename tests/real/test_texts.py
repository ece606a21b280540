"""GPT-2's tokenizer on real stories and novels."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import GPT2Tokenizer

from saelab.corpora import CorpusConfig, TokenPolicy, numbered_documents, pack

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")]


@pytest.fixture(scope="module")
def gpt2() -> GPT2Tokenizer:
    return GPT2Tokenizer.from_pretrained(DATA / "gpt2-tokenizer")


def stories(**options: object) -> CorpusConfig:
    return CorpusConfig(source=str(DATA / "text" / "tinystories.txt.gz"), **options)  # type: ignore[arg-type]


def test_packed_rows_decode_to_the_text(gpt2: GPT2Tokenizer):
    rows = next(pack(stories(), gpt2, TokenPolicy(context=128), rows=8))
    text = "".join(f"<|endoftext|>{d.document.text}" for d in islice(numbered_documents(stories()), 40))
    assert text.startswith(str(gpt2.decode(rows.ids.flatten())))


def test_train_and_test_stories_are_all_stories(gpt2: GPT2Tokenizer):
    train, test = ({n for n, _ in numbered_documents(stories(split=split))} for split in ("train", "test"))
    assert not train & test
    assert len(train | test) > 6000
    assert 0.04 < len(test) / len(train | test) < 0.06


def test_going_on_in_the_middle_of_a_novel(gpt2: GPT2Tokenizer):
    novels = CorpusConfig(source=str(DATA / "text" / "novels.txt.gz"))
    policy = TokenPolicy(context=1024)
    walked = list(islice(pack(novels, gpt2, policy, rows=8), 12))
    assert walked[11].start.token > 0
    begun = next(pack(novels, gpt2, policy, rows=8, cursor=walked[11].start))
    assert torch.equal(begun.ids, walked[11].ids)
