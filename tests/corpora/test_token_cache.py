"""Cached tokens: the same as fresh ones wherever one stops, dies or goes on; never those of another text."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from saelab.corpora import CorpusConfig, TokenPolicy, pack, token_cache
from saelab.corpora.token_cache import tokenised
from saelab.errors import UserError
from tests.corpora.conftest import words_tokenizer

ALL = 1e-9
TEXTS = ["a b c", "d", "e f g h", "", "a a", "b b b", "c", "h g f"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache whose chunks hold five tokens, for files that may be as young as they are."""
    monkeypatch.setenv("SAELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("saelab.corpora.text_files._SETTLED_S", -1.0)
    monkeypatch.setattr("saelab.corpora.token_cache.CHUNK_TOKENS", 5)
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusConfig:
    return write(tmp_path / "text.jsonl", TEXTS)


def write(path: Path, texts: list[str]) -> CorpusConfig:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return CorpusConfig(source=str(path), held_out=ALL)


def read(corpus: CorpusConfig, tokenizer: PreTrainedTokenizerFast, start: int = 0) -> list[tuple[int, list[int]]]:
    return [(document.number, document.ids.tolist()) for document in tokenised(corpus, tokenizer, start)]


def expected(texts: list[str], start: int = 0) -> list[tuple[int, list[int]]]:
    ids = [[" abcdefgh".index(word) for word in text.split()] for text in texts]
    return [(number, some) for number, some in enumerate(ids) if some and number >= start]


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(token_cache, "tokenise", refuse)


def test_a_second_pass_tokenises_nothing(
    corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    assert read(corpus, plain_tokenizer) == expected(TEXTS)
    (folder,) = cache.iterdir()
    # Five tokens or more close a chunk: documents 0 to 2 with 8, 4 and 5 with 5, and the rest, which the last one is.
    assert sorted(file.name.rsplit("-", 1)[0] for file in folder.iterdir()) == ["0-3-part", "3-6-part", "6-8-last"]
    forbid(monkeypatch)
    for start in range(9):
        assert read(corpus, plain_tokenizer, start) == expected(TEXTS, start)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(visits=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 9)), max_size=6))
def test_wherever_readers_begin_and_stop(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    plain_tokenizer: PreTrainedTokenizerFast,
    visits: list[tuple[int, int]],
):
    folder = tmp_path_factory.mktemp("visits")
    monkeypatch.setenv("SAELAB_CACHE", str(folder / "cache"))
    corpus = write(folder / "text.jsonl", TEXTS)
    for start, stop in visits:
        found = [(d.number, d.ids.tolist()) for d in islice(tokenised(corpus, plain_tokenizer, start), stop)]
        assert found == expected(TEXTS, start)[:stop]
    assert read(corpus, plain_tokenizer) == expected(TEXTS)


def test_a_reader_uses_what_another_wrote_meanwhile(
    corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
):
    slow = tokenised(corpus, plain_tokenizer)
    begun = [next(slow)]
    assert read(corpus, plain_tokenizer) == expected(TEXTS)
    forbid(monkeypatch)  # the slow one goes on to the end of its chunk, which it began already
    assert [(d.number, d.ids.tolist()) for d in [*begun, *slow]] == expected(TEXTS)


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "gone"])
def test_damage_is_made_good(corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, cache: Path, damage: str):
    read(corpus, plain_tokenizer)
    (folder,) = cache.iterdir()
    for file in folder.iterdir():
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        damaged = {"cut": content[:-3], "flipped": content, "emptied": b""}.get(damage)
        file.unlink() if damaged is None else file.write_bytes(damaged)
    (folder / "stranger.safetensors").write_bytes(b"")
    assert read(corpus, plain_tokenizer) == expected(TEXTS)
    assert read(corpus, plain_tokenizer) == expected(TEXTS)


def test_other_text_has_other_tokens(corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast):
    read(corpus, plain_tokenizer)
    other = [text[::-1] for text in TEXTS]  # of the same length
    path = Path(corpus.source)
    before = path.stat()
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in other))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert read(corpus, plain_tokenizer) == expected(other)


def test_text_that_changes_while_it_is_read_is_not_cached(
    corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, cache: Path
):
    reader = tokenised(corpus, plain_tokenizer)
    next(reader)
    with open(corpus.source, "a") as file:
        file.write('{"text": "a"}\n')
    list(reader)
    assert not list(cache.rglob("*.safetensors"))


def test_text_that_changed_just_now_is_not_cached(
    corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saelab.corpora.text_files._SETTLED_S", 3600.0)
    assert read(corpus, plain_tokenizer) == expected(TEXTS)
    assert not cache.exists()


def test_what_decides_the_ids_decides_the_entry(
    corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, cache: Path
):
    read(corpus, plain_tokenizer)
    read(corpus, words_tokenizer())  # equal, but another object
    assert len(list(cache.iterdir())) == 1
    more = words_tokenizer()
    more.add_tokens(["b c"])
    assert read(corpus, more)[0] == (0, [1, 9])
    read(corpus.model_copy(update={"held_out": 0.5}), plain_tokenizer)
    read(corpus.model_copy(update={"held_out": 0.5, "seed": 1}), plain_tokenizer)
    read(corpus.model_copy(update={"held_out": 0.5, "split": "test"}), plain_tokenizer)
    assert len(list(cache.iterdir())) == 5


def test_generated_text_is_cached_too(
    plain_tokenizer: PreTrainedTokenizerFast, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def first(seed: int) -> list[list[int]]:
        return [document.ids.tolist() for document in islice(tokenised(CorpusConfig(seed=seed), plain_tokenizer), 5)]

    one, two = first(1), first(2)
    forbid(monkeypatch)
    assert (first(1), first(2)) == (one, two)
    assert len(list(cache.iterdir())) == 2


def test_an_error_in_the_text_is_met_again(tmp_path: Path, plain_tokenizer: PreTrainedTokenizerFast):
    corpus = write(tmp_path / "bad.jsonl", ["a b c d e"] * 100)
    with open(corpus.source, "a") as file:
        file.write("no json\n")
    for _ in range(2):
        with pytest.raises(UserError, match="line 101 is not valid JSON"):
            read(corpus, plain_tokenizer)


def test_the_cache_stays_within_its_size(
    corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def size() -> int:
        return sum(file.stat().st_size for file in cache.rglob("*.safetensors"))

    read(corpus, plain_tokenizer)
    (first,) = cache.iterdir()
    os.utime(first, (1, 1))  # not used for long
    one = size()
    monkeypatch.setenv("SAELAB_CACHE_SIZE", str(2 * one))
    for seed in (1, 2):
        read(corpus.model_copy(update={"seed": seed}), plain_tokenizer)
    assert len(list(cache.iterdir())) == 2
    assert not first.exists()
    monkeypatch.setenv("SAELAB_CACHE_SIZE", "100B")
    assert read(corpus.model_copy(update={"seed": 3}), plain_tokenizer) == expected(TEXTS)
    assert size() <= 2 * one
    monkeypatch.setenv("SAELAB_CACHE_SIZE", "much")
    with pytest.warns(UserWarning, match="SAELAB_CACHE_SIZE: 'much' is not a size"):
        read(corpus.model_copy(update={"seed": 4}), plain_tokenizer)


def test_a_cache_that_can_not_be_written_stops_nobody(
    corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAELAB_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="tokens are not cached: .* can't be written"):
        assert read(corpus, plain_tokenizer) == expected(TEXTS)


@pytest.mark.parametrize("named", ["off", ""])
def test_it_can_be_switched_off(
    corpus: CorpusConfig,
    plain_tokenizer: PreTrainedTokenizerFast,
    cache: Path,
    named: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("SAELAB_CACHE", named)
    assert read(corpus, plain_tokenizer) == expected(TEXTS)
    assert not cache.exists()


def test_rows_are_the_same(corpus: CorpusConfig, plain_tokenizer: PreTrainedTokenizerFast, cache: Path):
    policy = TokenPolicy(context=3)
    first, second = (next(pack(corpus, plain_tokenizer, policy)) for _ in range(2))
    assert cache.exists()
    assert first.ids.tolist() == second.ids.tolist()
    assert first.next == second.next
