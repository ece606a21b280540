"""Models and dictionaries in the app: loaded once for everybody, and a sentence where they can't be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import model
from app.problems import NothingToShowError
from app.workspace import Run
from saelab.disk import RunPaths
from saelab.disk.layout import DictionaryPaths
from saelab.models import LanguageModel


@pytest.fixture(autouse=True)
def nothing_loaded() -> None:
    model._load_model.clear()


def run_of(folder: Path, name: str = "mind") -> Run:
    return Run(name, RunPaths(folder / name))


def test_several_visitors_at_once_load_one_model(minds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []
    load = LanguageModel.load
    monkeypatch.setattr(LanguageModel, "load", lambda *args, **options: loads.append(args) or load(*args, **options))
    visits = [run_of(minds, name) for name in ("mind", "bare") * 4]  # two dictionaries on the same model
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(model.language_model, visits))
    assert len(loads) == 1
    assert len({id(each) for each in models}) == 1
    assert model.dictionary(visits[0]) is model.dictionary(visits[0])


def test_another_dictionary_in_its_place_is_read_again(minds: Path, tmp_path: Path) -> None:
    shutil.copytree(minds / "mind", tmp_path / "mind")
    run = run_of(tmp_path)
    before, version = model.dictionary(run), model.version(run)
    shutil.rmtree(run.paths.dictionary)
    shutil.copytree(minds / "heads" / "dictionary", run.paths.dictionary)
    assert model.dictionary(run).site != before.site
    assert model.version(run) != version


def test_a_model_that_is_gone_is_a_sentence(minds: Path, tmp_path: Path) -> None:
    shutil.copytree(minds / "mind", tmp_path / "mind")
    config = DictionaryPaths(tmp_path / "mind" / "dictionary").config
    name = model.dictionary(run_of(minds)).model_name
    config.write_text(config.read_text().replace(name, str(tmp_path / "gone")))
    with pytest.raises(NothingToShowError, match=r"Model folder .*gone does not exist\. If the folder was moved"):
        model.language_model(run_of(tmp_path))


def test_activations_that_are_gone_are_a_sentence(
    minds: Path, tmp_path: Path, open_page: Callable[..., AppTest]
) -> None:
    shutil.copytree(minds / "mind", tmp_path / "mind")
    (tmp_path / "mind" / "config.yaml").write_text(f"activations: {tmp_path}/harvest\n")
    with pytest.raises(NothingToShowError, match=r"harvest is no directory of activations.* Put the folder back"):
        model.language_model(run_of(tmp_path))
    for address in ("prompt", "steer", "search", "latent", "runs", "evaluations", ""):
        page = open_page(tmp_path, run="mind")
        page.session_state["go_to_page"] = (
            address, {"run": ["mind"], "text": ["The cat"], "latents": ["9"], "by": ["example"], "on": ["The cat"]}
        )  # fmt: skip
        page.run()
        shown = "\n".join(element.proto.body for element in page.get("html"))
        assert not page.exception
        assert "This page failed" not in shown
        assert ("Put the folder back" in shown) == (address in ("prompt", "steer", "search")), address


def test_a_model_with_other_weights_is_refused(minds: Path, tmp_path: Path) -> None:
    shutil.copytree(minds / "mind", tmp_path / "mind")
    config = DictionaryPaths(tmp_path / "mind" / "dictionary").config
    fingerprint = model.dictionary(run_of(minds)).config.model_fingerprint
    config.write_text(config.read_text().replace(fingerprint, "f" * len(fingerprint)))
    with pytest.raises(NothingToShowError, match="not those that the dictionary was trained on"):
        model.language_model(run_of(tmp_path))


def test_no_memory_is_a_sentence(minds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(LanguageModel, "load", load)
    with pytest.raises(NothingToShowError, match="not enough memory"):
        model.language_model(run_of(minds))


def test_a_run_without_a_dictionary_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NothingToShowError, match="training has not finished"):
        model.dictionary(run_of(tmp_path))


def test_the_vocabulary_needs_no_index(minds: Path) -> None:
    assert len(model.vocabulary(run_of(minds, "bare"))) == model.language_model(run_of(minds)).d_vocab
