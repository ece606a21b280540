"""`saelab convert`: what it says, what it leaves behind, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.exchange import random_dictionary
from saelab.dictionaries.artifact import load
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk.tensors import read_tensors
from saelab.errors import UserError
from saelab.hub.formats import named, sparsify
from saelab.hub.formats.convert import convert
from saelab.hub.formats.probes import difference, probes
from saelab.models.site import Site
from tests.conftest import Saelab
from tests.hub.formats import reference


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    dictionary = random_dictionary("mutual-choice", 16, 64, 4, scale=0.03)
    dictionary.save(tmp_path / "mine" / "dictionary", probes(dictionary, 8))
    return tmp_path / "mine"


@pytest.mark.parametrize("form", ["saelens", "dictionary-learning", "saelab"])
def test_out_and_in_again(form: str, ours: Path, tmp_path: Path, saelab: Saelab) -> None:
    out = saelab("convert", ours, tmp_path / "there", "--to", form)
    assert out.code == 0
    assert f"read   {ours} (saelab): mutual-choice, 16 → 64 latents, k = 4, blocks.3.resid_post of gpt2" in out.out
    assert ("the factor 0.03 of inputs was folded into the weights" in out.out) == (form != "saelab")
    assert "on 256 random inputs" in out.out
    back = saelab("convert", tmp_path / "there", tmp_path / "back")
    assert back.code == 0
    dictionary = load(tmp_path / "back")
    assert difference(load(ours), dictionary, probes(load(ours), 64)).largest < 1e-5
    assert dictionary.config.architecture == "mutual-choice"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "there", "back"}


def test_places_that_files_do_not_say(tmp_path: Path, saelab: Saelab) -> None:
    reference.sparsify(tmp_path / "theirs")
    out = saelab(
        "convert", tmp_path / "theirs", tmp_path / "run", "--site", "blocks.1.hook_resid_post", "--model", "gpt2"
    )
    assert out.code == 0
    assert "blocks.1.resid_post of gpt2" in out.out
    assert "do not say which site" not in out.out
    refused = saelab("convert", tmp_path / "run", tmp_path / "other", "--site", "blocks.2.resid_post")
    assert refused.code == 2
    assert "contradicts the files" in refused.err
    assert not (tmp_path / "other").exists()


def test_an_unknown_place_is_asked_for_when_it_is_needed(tmp_path: Path, saelab: Saelab) -> None:
    reference.sparsify(tmp_path / "theirs")
    assert saelab("convert", tmp_path / "theirs", tmp_path / "run").code == 0
    with pytest.raises(UserError, match="do not say which site it belongs to; `saelab convert --site"):
        Site.parse(load(tmp_path / "run").site)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("none", "x"), "does not exist"),
        (("mine", "mine"), "mine/dictionary exists already"),
        (("mine", "x", "--to", "sparsify"), "can't express the thresholds of mutual-choice"),
        (("mine", "x", "--to", "onnx"), "format 'onnx' is unknown"),
        (("mine", "x", "--site", "layer 3"), "site 'layer 3' can't be read"),
    ],
)
def test_refused(
    words: tuple[str, ...], message: str, ours: Path, saelab: Saelab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ours.parent)
    result = saelab("convert", *words)
    assert result.code == 2
    assert message in result.err
    assert {path.name for path in ours.parent.iterdir()} == {"mine"}


def test_a_format_that_writes_wrongly_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the decoder's bias were forgotten on the way out."""
    dictionary = random_dictionary("topk", 16, 64, 4)
    dictionary.save(tmp_path / "a", probes(dictionary, 8))
    right = sparsify.plain

    def wrong(given: Dictionary, tool: str, transcoders: bool = False) -> Dictionary:
        return replace(right(given, tool, transcoders), b_dec=torch.zeros(16))

    monkeypatch.setattr(sparsify, "plain", wrong)
    with pytest.raises(UserError, match="reconstructions would be off by"):
        convert(tmp_path / "a", tmp_path / "b", named("sparsify"))
    assert {path.name for path in tmp_path.iterdir()} == {"a"}


def test_the_golden_inputs_of_an_imported_dictionary_make_it_fire(tmp_path: Path) -> None:
    reference.saelens(tmp_path / "theirs", "jumprelu")
    convert(tmp_path / "theirs", tmp_path / "run" / "dictionary", named("saelab"))
    golden = read_tensors(tmp_path / "run" / "dictionary" / "golden.safetensors")
    assert len(golden["x"]) == 16
    assert golden["values"].numel() > 16
    assert load(tmp_path / "run").config.imported_from == "saelens"
