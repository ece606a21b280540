"""Documents: every kind of source, splits that never meet, and one sentence for what can be wrong."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from saelab.corpora import CorpusConfig, is_endless, numbered_documents
from saelab.corpora.text_files import LONGEST_DOCUMENT
from saelab.errors import UserError

ALL = 1e-9
TEXTS = ["one one", "two", "three\nlines", "four"]


def texts_of(path: Path, start: int = 0, **options: object) -> list[tuple[int, str]]:
    config = CorpusConfig(source=str(path), **{"held_out": ALL, **options})  # type: ignore[arg-type]
    return [(number, document.text) for number, document in numbered_documents(config, start)]


def write(path: Path) -> Path:
    """TEXTS in the format that the name says."""
    plain = "<|endoftext|>\n" + "\n<|endoftext|>\n".join(TEXTS) + "\n"
    lines = "\n".join(json.dumps({"text": text, "other": 1}) for text in TEXTS)
    content = (lines if ".jsonl" in path.name else plain).encode()
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({"text": TEXTS}), path, row_group_size=2)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    elif path.suffix == ".zst":
        with pa.output_stream(path, compression="zstd") as file:
            file.write(content)
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "name", ["t.txt", "t.txt.gz", "t.txt.zst", "t.jsonl", "t.jsonl.gz", "t.jsonl.zst", "t.parquet"]
)
def test_every_format_gives_the_same_documents(tmp_path: Path, name: str):
    assert [text for _, text in texts_of(write(tmp_path / name))] == TEXTS


@pytest.mark.parametrize("name", ["t.txt.gz", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_reading_starts_at_a_document(tmp_path: Path, name: str, start: int):
    whole = texts_of(write(tmp_path / name))
    begun = [item for item in whole if item[0] >= start]
    if begun or start:
        assert texts_of(tmp_path / name, start) == begun


def test_a_folder_is_its_files_in_order_of_name(tmp_path: Path):
    write(tmp_path / "b.parquet")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "first.txt").write_text("zero")
    (tmp_path / "notes.pdf").write_bytes(b"\xff")
    (tmp_path / ".hidden.txt").write_text("secret")
    assert texts_of(tmp_path) == [(0, "zero"), (1, "one one"), (2, "two"), (3, "three\nlines"), (4, "four")]
    assert texts_of(tmp_path, 3) == [(3, "three\nlines"), (4, "four")]


def test_separators_in_the_middle_of_a_line_and_windows_newlines(tmp_path: Path):
    (tmp_path / "t.txt").write_bytes("\ufeffone<|endoftext|>two\r\nlines<|endoftext|>".encode())
    assert [text for _, text in texts_of(tmp_path / "t.txt")] == ["one", "two\nlines"]


def test_a_document_without_end_is_cut_at_a_line(tmp_path: Path):
    line = "x" * 99 + "\n"
    (tmp_path / "t.txt").write_text(line * (3 * LONGEST_DOCUMENT // 100) + "<|endoftext|>end")
    texts = [text for _, text in texts_of(tmp_path / "t.txt")]
    assert max(map(len, texts)) <= LONGEST_DOCUMENT
    assert texts[-1] == "end"
    assert "\n".join(texts[:-1]) + "\n" == line * (3 * LONGEST_DOCUMENT // 100)


def test_train_and_test_divide_the_documents(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(2000)))
    train = {number for number, _ in texts_of(path, held_out=0.1)}
    test = {number for number, _ in texts_of(path, held_out=0.1, split="test")}
    assert train | test == set(range(2000))
    assert not train & test
    assert 150 < len(test) < 250  # 200 expected, standard deviation 13


def test_the_split_is_the_same_wherever_reading_starts(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(200)))
    whole = texts_of(path, held_out=0.3, split="test")
    assert texts_of(path, 50, held_out=0.3, split="test") == [item for item in whole if item[0] >= 50]


def test_another_seed_holds_out_others(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(200)))
    one, two = (texts_of(path, held_out=0.3, split="test", seed=seed) for seed in (1, 2))
    assert one != two


def test_the_microworld_is_endless_and_seekable():
    config = CorpusConfig(seed=3)
    assert is_endless(config)
    whole = list(islice(numbered_documents(config), 6))
    assert list(islice(numbered_documents(config, 4), 2)) == whole[4:]
    assert whole[0].document.spans


def test_the_microworld_has_two_worlds():
    train, test = (list(islice(numbered_documents(CorpusConfig(split=s)), 20)) for s in ("train", "test"))
    assert [d.document.text for d in train] != [d.document.text for d in test]


def test_a_local_hugging_face_dataset(tmp_path: Path):
    write(tmp_path / "data.jsonl")
    assert texts_of(Path(f"hf:{tmp_path}")) == list(enumerate(TEXTS))
    assert texts_of(Path(f"hf:{tmp_path}"), 2) == list(enumerate(TEXTS))[2:]


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (b'{"text": "a"}\n{"text": ', {}, r"line 2 is not valid JSON"),
        (b'{"body": "a"}\n', {}, r"line 1 has no text under 'text'; its keys are body"),
        (b'{"text": 3}\n', {}, r"has no text under 'text'"),
        (b"[1]\n", {}, r"not an object"),
        (b'{"text": "caf\xe9"}\n', {}, r"not UTF-8"),
        (b"", {}, r"no document in its train split"),
        (b'{"text": "  "}\n', {}, r"no document"),
        (b'{"text": "a"}\n', {"split": "test"}, r"test split; a larger held_out share"),
    ],
)
def test_bad_lines(tmp_path: Path, content: bytes, options: dict[str, str], sentence: str):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        texts_of(tmp_path / "bad.jsonl", 0, **options)


@pytest.mark.parametrize("damage", ["cut", "header", "middle"])
def test_a_damaged_gz_is_named(tmp_path: Path, damage: str):
    path = tmp_path / "t.txt.gz"
    whole = bytearray(gzip.compress("".join(f"text {i}\n" for i in range(5000)).encode()))
    if damage == "cut":
        whole = whole[: len(whole) // 2]
    else:
        at = 0 if damage == "header" else len(whole) // 2
        whole[at : at + 4] = b"\x00\xff\x00\xff"
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"t\.txt\.gz (is a damaged \.gz file|is not UTF-8)"):
        texts_of(path)


def test_damaged_zst_and_parquet_are_named(tmp_path: Path):
    for name in ("t.txt.zst", "t.parquet"):
        (tmp_path / name).write_bytes(b"this is neither")
        with pytest.raises(UserError, match=f"{name} can't be read"):
            texts_of(tmp_path / name)


def test_a_missing_column_of_a_table_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="no column 'body'; its columns are text"):
        texts_of(write(tmp_path / "t.parquet"), column="body")


def test_a_column_of_numbers_is_refused(tmp_path: Path):
    parquet.write_table(pa.table({"text": [1, 2]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="holds int64, not text"):
        texts_of(tmp_path / "t.parquet")


def test_missing_and_unknown_files(tmp_path: Path):
    with pytest.raises(UserError, match="does not exist; give a file"):
        texts_of(tmp_path / "nowhere.txt")
    with pytest.raises(UserError, match="holds no file of a known kind"):
        texts_of(tmp_path)
    (tmp_path / "t.pdf").write_bytes(b"")
    with pytest.raises(UserError, match="is of no known kind"):
        texts_of(tmp_path / "t.pdf")


def test_a_missing_dataset_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="Hugging Face dataset"):
        texts_of(Path(f"hf:{tmp_path}/nowhere"))


def test_a_wrong_column_of_a_dataset_is_named(tmp_path: Path):
    write(tmp_path / "data.jsonl")
    with pytest.raises(UserError, match="no text in column 'body'; its columns are other, text"):
        texts_of(Path(f"hf:{tmp_path}"), column="body")
