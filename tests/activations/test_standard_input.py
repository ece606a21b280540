"""A harvest of text that is piped in."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saelab.activations import HarvestConfig
from saelab.activations.forward import Forward
from saelab.activations.harvest import harvest
from saelab.activations.manifest import Manifest
from saelab.corpora import CorpusConfig
from saelab.disk import ActivationPaths
from saelab.disk.tensors import read_tensors
from saelab.errors import UserError
from saelab.models import LanguageModel


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch, text: CorpusConfig) -> Callable[[], None]:
    """Pipe the text in, as it is for a process that begins."""
    content = Path(text.source).read_bytes()
    return lambda: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))  # type: ignore[arg-type]


def test_it_is_that_of_a_file(
    pipe: Callable[[], None], settings: Callable[..., HarvestConfig], model: LanguageModel, tmp_path: Path
):
    pipe()
    piped = settings(corpus=CorpusConfig(source="stdin"), tokens=10**5)
    one = harvest(piped, tmp_path / "piped", model=model)
    two = harvest(settings(tokens=10**5), tmp_path / "file", model=model)
    assert Manifest.load(one).finished
    keys = ("ids", "document", "keep")
    first, second = (read_tensors(ActivationPaths(out).tokens(3)) for out in (one, two))
    assert all(torch.equal(first[key], second[key]) for key in keys)
    assert harvest(piped, one, model=model) == one  # finished


def test_one_that_stopped_is_not_continued(
    pipe: Callable[[], None],
    settings: Callable[..., HarvestConfig],
    model: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    pipe()
    piped = settings(corpus=CorpusConfig(source="stdin"))
    passes = 0
    made = Forward.__call__

    def stop(*arguments: object) -> object:
        nonlocal passes
        passes += 1
        if passes > 13:
            raise KeyboardInterrupt
        return made(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Forward, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            harvest(piped, tmp_path / "out", model=model)
    pipe()
    with pytest.raises(UserError, match="standard input is gone with the process that read it"):
        harvest(piped, tmp_path / "out", model=model)
    assert Manifest.load(harvest(piped, tmp_path / "out", overwrite=True, model=model)).finished
