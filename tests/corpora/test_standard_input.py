"""Text that is piped in: read once, any number of times by one process, never from the middle by another."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from itertools import islice

import pytest
from transformers import PreTrainedTokenizerFast

from saelab.corpora import CorpusConfig, TokenPolicy, numbered_documents, pack
from saelab.errors import UserError

ALL = 1e-9


class Piped(io.TextIOWrapper):
    """Standard input that says whether it is a terminal, and how much of it was taken."""

    def __init__(self, content: bytes, terminal: bool = False) -> None:
        super().__init__(io.BufferedReader(io.BytesIO(content), buffer_size=64))  # type: ignore[arg-type]
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(content: bytes, terminal: bool = False) -> None:
        monkeypatch.setattr("sys.stdin", Piped(content, terminal))

    return put


def texts(source: str = "stdin", start: int = 0, **options: object) -> list[str]:
    config = CorpusConfig(source=source, held_out=ALL, **options)  # type: ignore[arg-type]
    return [document.text for _, document in numbered_documents(config, start)]


def test_plain_text_has_separators(pipe: Callable[..., None]):
    pipe(b"one\n<|endoftext|>\ntwo\nlines<|endoftext|>three")
    assert texts() == ["one", "two\nlines", "three"]


@pytest.mark.parametrize("source", ["stdin.jsonl", "stdin.jsonl.gz"])
def test_the_ending_says_how_to_read(pipe: Callable[..., None], source: str):
    content = b"".join(json.dumps({"body": text}).encode() + b"\n" for text in ("one", "t\u00fcr"))
    pipe(gzip.compress(content) if source.endswith("gz") else content)
    assert texts(source, column="body") == ["one", "t\u00fcr"]


def test_one_process_may_read_it_again_from_anywhere(pipe: Callable[..., None]):
    pipe(b"<|endoftext|>".join(f"text {i}".encode() for i in range(9)))
    config = CorpusConfig(source="stdin", held_out=ALL)
    few = [document.text for _, document in islice(numbered_documents(config), 3)]
    assert few == texts()[:3]
    assert texts() == [f"text {i}" for i in range(9)]
    assert texts() == [f"text {i}" for i in range(9)]  # it has ended meanwhile
    assert texts(start=4) == [f"text {i}" for i in range(4, 9)]


def test_two_readers_at_once_see_all_of_it(pipe: Callable[..., None]):
    pipe(b"<|endoftext|>".join(f"text {i}".encode() for i in range(9)))
    one, two = (numbered_documents(CorpusConfig(source="stdin", held_out=ALL)) for _ in range(2))
    assert [next(one), next(one)][1:] == [next(two), next(two)][1:]
    assert list(one) == list(two)


def test_another_process_can_not_go_on(pipe: Callable[..., None]):
    pipe(b"one<|endoftext|>two")
    with pytest.raises(UserError, match=r"from standard input is gone .* start it anew \(--overwrite\)"):
        texts(start=1)


def test_training_would_read_it_twice(pipe: Callable[..., None], eos_tokenizer: PreTrainedTokenizerFast):
    pipe(b"a b c d")
    with pytest.raises(UserError, match="can be read once only; harvest it first"):
        next(pack(CorpusConfig(source="stdin"), eos_tokenizer, TokenPolicy(context=4), repeat=True))


def test_what_can_not_be_read_is_said(pipe: Callable[..., None], monkeypatch: pytest.MonkeyPatch):
    pipe(b"", terminal=True)
    with pytest.raises(UserError, match="no text is piped in"):
        texts()
    pipe(b"")
    with pytest.raises(UserError, match="corpus 'stdin' has no document"):
        texts()
    pipe(b"caf\xe9")
    with pytest.raises(UserError, match="standard input is not UTF-8"):
        texts()
    pipe(b"{}\n")
    with pytest.raises(UserError, match="standard input, line 1 has no text under 'text'"):
        texts("stdin.jsonl")
    with pytest.raises(UserError, match=r"plain text .* or JSON lines"):
        texts("stdin.parquet")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="several processes can't share standard input"):
        texts()
