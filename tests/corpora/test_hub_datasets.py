"""Hugging Face datasets that lie on this disk, streamed or not, and one sentence for what can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from saelab.corpora import CorpusConfig, numbered_documents
from saelab.corpora.hub_datasets import HubSource
from saelab.errors import UserError

ALL = 1e-9
TEXTS = [f"text {i}" for i in range(600)]  # more than are read at a time


@pytest.fixture(scope="module", autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory):
    """No bars, and nothing left in the user's own cache."""
    patch = pytest.MonkeyPatch()
    patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
    patch.undo()


def read(path: Path | str, start: int = 0, **options: object) -> list[str]:
    config = CorpusConfig(source=f"hf:{path}", held_out=ALL, **options)  # type: ignore[arg-type]
    return [document.text for _, document in numbered_documents(config, start)]


def saved(path: Path) -> Path:
    datasets.Dataset.from_dict({"text": TEXTS, "n": range(600)}).save_to_disk(path)
    return path


def two_splits(path: Path) -> Path:
    splits = {"train": TEXTS[:400], "validation": TEXTS[400:]}
    datasets.DatasetDict({k: datasets.Dataset.from_dict({"text": v}) for k, v in splits.items()}).save_to_disk(path)
    return path


def table(path: Path) -> Path:
    path.mkdir()
    parquet.write_table(pa.table({"text": TEXTS, "n": list(range(600))}), path / "data.parquet", row_group_size=100)
    return path


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("make", [saved, table])
def test_it_is_read_from_any_document(tmp_path: Path, make: Callable[[Path], Path], streaming: bool):
    path = make(tmp_path / "data")
    for start in (0, 1, 256, 599):
        assert read(path, start, dataset_streaming=streaming) == TEXTS[start:]


def test_a_saved_dataset_has_its_splits(tmp_path: Path):
    path = two_splits(tmp_path / "data")
    assert read(path) == TEXTS[:400]
    assert read(path, dataset_split="validation") == TEXTS[400:]
    with pytest.raises(UserError, match="no split 'test'; set dataset_split to train or validation"):
        read(path, dataset_split="test")
    with pytest.raises(UserError, match="no split 'test'; set dataset_split to train"):
        read(saved(tmp_path / "one"), dataset_split="test")


@pytest.mark.parametrize("make", [saved, table])
@pytest.mark.parametrize("column", ["body", "n"])
def test_a_column_without_text_is_named(tmp_path: Path, make: Callable[[Path], Path], column: str):
    with pytest.raises(UserError, match=rf"no text in column '{column}'; its columns are n, text \(set column\)"):
        read(make(tmp_path / "data"), column=column)


def test_missing_texts_are_blank(tmp_path: Path):
    datasets.Dataset.from_dict({"text": ["one", None, "three"]}).save_to_disk(tmp_path / "data")
    assert read(tmp_path / "data") == ["one", "three"]


def test_a_script_is_refused(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.py").write_text("raise SystemExit\n")
    with pytest.raises(UserError, match="can't be read: "):
        read(tmp_path / "data")


@pytest.mark.parametrize("streaming", [True, False])
def test_damaged_files_are_one_sentence(tmp_path: Path, streaming: bool):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.parquet").write_bytes(b"this is no table")
    with pytest.raises(UserError, match=r"Hugging Face dataset .* can't be read: \S"):
        read(tmp_path / "data", dataset_streaming=streaming)


def test_the_hub_is_asked_once_which_commit_it_is(monkeypatch: pytest.MonkeyPatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    asked = []

    def dataset_info(_: object, name: str, revision: str | None, timeout: float) -> object:
        asked.append((name, revision))
        return type("Info", (), {"sha": commit})

    def load_dataset(name: str, *arguments: object, revision: str, **options: object) -> datasets.Dataset:
        assert (name, revision) == ("some/name", commit)
        return datasets.Dataset.from_dict({"text": ["one"]})

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", dataset_info)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert read("some/name", dataset_revision="v1") == ["one"]
    assert asked == [("some/name", "v1")]
    identity = HubSource(CorpusConfig(source="hf:some/name", dataset_split="validation")).identity()
    assert identity is not None
    assert commit in identity
    assert "validation" in identity


def test_without_a_connection_nothing_names_a_dataset_of_the_hub():
    source = HubSource(CorpusConfig(source="hf:some/name"))
    assert source.identity() is None
    with pytest.raises(UserError, match="Hugging Face dataset 'some/name' can't be read"):
        next(source.read(0))


def test_loading_keys_belong_to_datasets():
    with pytest.raises(ValueError, match="dataset_streaming belongs to a Hugging Face dataset"):
        CorpusConfig(source="demo", dataset_streaming=False)
