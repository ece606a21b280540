"""Each mistake of a user's ends in exit code 2 and one sentence, and leaves nothing under a final name."""

import errno
import gzip
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from saelab import cli
from saelab.disk import ActivationPaths, RunPaths
from saelab.disk.layout import DictionaryPaths


@pytest.fixture
def refuses(saelab):
    """Run a command that must be refused; give back the sentence."""

    def run(*words: object) -> str:
        code, out, err = saelab(*words)
        assert code == 2, err
        last = err.strip().splitlines()[-1]
        assert last.startswith("saelab: ")
        assert "Traceback" not in err
        assert out == "" or words[0] == "harvest"  # which shows its plan first
        return last

    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_unknown_setting(refuses, small, tmp_path) -> None:
    sentence = refuses("train", *small, "--sae.d_see", 64, "--out", tmp_path / "run")
    assert "unknown key 'sae.d_see'" in sentence
    assert "did you mean 'd_sae'" in sentence
    assert list(tmp_path.iterdir()) == []


def test_unknown_key_in_a_file(refuses, small, tmp_path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("token: 10M\n")
    sentence = refuses("train", file, *small, "--out", tmp_path / "run")
    assert "run.yaml" in sentence
    assert "did you mean 'tokens'" in sentence


def test_file_that_is_not_yaml(refuses, tmp_path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("a: [1\n")
    assert "not valid YAML" in refuses("train", file)


def test_missing_config_file(refuses, tmp_path) -> None:
    assert "does not exist" in refuses("train", tmp_path / "nope.yaml")


def test_more_active_latents_than_latents(refuses, small, tmp_path) -> None:
    sentence = refuses("train", *small, "--sae.k", 33, "--out", tmp_path / "run")
    assert "33 active latents" in sentence
    assert "d_sae = 32" in sentence


def test_a_size_that_is_not_one(refuses, small) -> None:
    assert "10X" in refuses("train", *small, "--tokens", "10X")


@pytest.mark.parametrize("site", ["blocks.9.resid_post", "blocks.0.attn.z.head7", "block.0.resid"])
def test_site_that_the_model_does_not_have(refuses, small, tmp_path, site: str) -> None:
    assert site in refuses("train", *small, "--site", site, "--out", tmp_path / "run")
    assert not RunPaths(tmp_path / "run").dictionary.exists()


def test_batch_larger_than_the_training(refuses, small, tmp_path) -> None:
    sentence = refuses("train", *small, "--batch", 2048, "--buffer", 4096, "--out", tmp_path / "run")
    assert "1024" in sentence
    assert "2048" in sentence


@pytest.mark.parametrize("command", ["evaluate", "index", "inspect", "browse"])
def test_missing_directory(refuses, tmp_path, command: str) -> None:
    assert "nope" in refuses(command, tmp_path / "nope")


def test_missing_run_to_steer(refuses, tmp_path) -> None:
    assert "nope" in refuses("steer", tmp_path / "nope", "--latent", 1)


def test_missing_activations(refuses, small, tmp_path) -> None:
    sentence = refuses("train", *small, "--activations", tmp_path / "nope", "--out", tmp_path / "run")
    assert "nope" in sentence


def test_missing_model_folder(refuses, small, tmp_path) -> None:
    assert "nope" in refuses("train", *small, "--model", tmp_path / "nope", "--out", tmp_path / "run")


def test_model_folder_without_a_tokenizer(refuses, small, tiny_model, tmp_path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in refuses("train", *small, "--model", folder, "--out", tmp_path / "run")


def test_model_with_damaged_weights(refuses, small, tiny_model, tmp_path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert str(folder) in refuses("train", *small, "--model", folder, "--out", tmp_path / "run")


@pytest.mark.parametrize("command", ["evaluate", "index", "inspect"])
def test_damaged_weights_of_a_dictionary(refuses, run, command: str) -> None:
    weights = DictionaryPaths(RunPaths(run).dictionary).weights
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0xFF
    weights.write_bytes(content)
    assert str(weights) in refuses(command, run)


def test_damaged_config_of_a_dictionary(refuses, run) -> None:
    config = DictionaryPaths(RunPaths(run).dictionary).config
    config.write_text(config.read_text()[:40])
    assert str(config) in refuses("inspect", run)


def test_dictionary_of_a_newer_saelab(refuses, run) -> None:
    config = DictionaryPaths(RunPaths(run).dictionary).config
    config.write_text(json.dumps(json.loads(config.read_text()) | {"schema_version": 99}))
    assert "update saelab" in refuses("inspect", run)


@pytest.fixture(scope="module")
def harvested(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("activations") / "small"
    with pytest.raises(SystemExit) as stop:
        cli.main(["harvest", *map(str, harvest_settings(tiny_model)), "--out", str(directory)])
    assert stop.value.code == 0
    return directory


def harvest_settings(model: Path) -> list[object]:
    return ["--model", model, "--sites", "[blocks.0.resid_post]", "--policy.context", 32, "--tokens", 512]


def test_harvest_of_a_site_that_the_model_does_not_have(refuses, tiny_model, tmp_path) -> None:
    sentence = refuses("harvest", *harvest_settings(tiny_model), "--sites", "[blocks.5.z]", "--out", tmp_path / "a")
    assert "blocks.5" in sentence
    assert not ActivationPaths(tmp_path / "a").manifest.exists()


def test_harvest_larger_than_the_disk(refuses, tiny_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9, free=10**6))
    sentence = refuses("harvest", *harvest_settings(tiny_model), "--out", tmp_path / "a")
    assert "needs" in sentence
    assert "free" in sentence
    assert not ActivationPaths(tmp_path / "a").manifest.exists()


def test_disk_that_fills_up_on_the_way(refuses, small, tmp_path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "the disk is full" in refuses("train", *small, "--out", tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")] == []


def test_rows_longer_than_the_context(refuses, tiny_model, tmp_path) -> None:
    sentence = refuses("harvest", *harvest_settings(tiny_model), "--policy.context", 64, "--out", tmp_path / "a")
    assert "64" in sentence
    assert "32" in sentence


def test_batch_larger_than_the_harvested_data(refuses, small, harvested, tmp_path) -> None:
    sentence = refuses("train", *small, "--activations", harvested, "--batch", 512, "--out", tmp_path / "run")
    assert "512" in sentence
    assert not RunPaths(tmp_path / "run").dictionary.exists()


def test_site_that_was_not_harvested(refuses, small, harvested, tmp_path) -> None:
    sentence = refuses(
        "train", *small, "--activations", harvested, "--site", "blocks.1.mlp_out", "--out", tmp_path / "run"
    )
    assert "blocks.1.mlp_out" in sentence
    assert "blocks.0.resid_post" in sentence


def test_damaged_shards_are_named_and_made_again(saelab, refuses, small, harvested, tmp_path) -> None:
    copy = Path(shutil.copytree(harvested, tmp_path / "a"))
    shard, tokens = ActivationPaths(copy).activations("blocks.0.resid_post", 0), ActivationPaths(copy).tokens(0)
    tokens.write_bytes(tokens.read_bytes()[:-10])
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    code, out, err = saelab("inspect", copy, "--verify")
    assert code == 2
    said = " ".join(out.split())
    assert f"shard 0: {tokens.name} has the wrong length" in said
    assert f"{shard.name} is damaged" in said
    command = f"saelab harvest --out {copy} --repair"
    assert f"`{command}`" in err
    assert "Traceback" not in err
    assert f"`{command}`" in refuses("train", *small, "--activations", copy, "--out", tmp_path / "run")
    assert saelab(*command.split()[1:]).code == 0
    assert saelab("inspect", copy, "--verify").code == 0
    assert shard.read_bytes() == ActivationPaths(harvested).activations("blocks.0.resid_post", 0).read_bytes()


def test_repair_of_nothing(refuses, tmp_path) -> None:
    assert "--out DIR --repair" in refuses("harvest", "--repair")
    assert "give one of them" in refuses("harvest", "--repair", "--overwrite", "--out", tmp_path)
    assert "no directory of activations" in refuses("harvest", "--repair", "--out", tmp_path / "nope")


def text_of(tmp_path: Path, kind: str) -> list[object]:
    """Settings of a corpus that is not as it should be."""
    gz, lines, blank = tmp_path / "a.txt.gz", tmp_path / "a.jsonl", tmp_path / "blank.txt"
    match kind:
        case "corrupt gz":
            gz.write_bytes(gzip.compress(b"a long story " * 1000)[:-20])
            return ["--corpus.source", gz]
        case "no gz":
            gz.write_bytes(b"plain text")
            return ["--corpus.source", gz]
        case "wrong column":
            lines.write_text('{"story": "Once upon a time"}\n')
            return ["--corpus.source", lines]
        case "empty":
            blank.write_text(" \n")
            return ["--corpus.source", blank]
        case "too short":
            blank.write_text("ab\n")
            return ["--corpus.source", blank]
        case _:
            return ["--corpus.source", tmp_path / "missing.txt"]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("corrupt gz", "is a damaged .gz file"),
        ("no gz", "is a damaged .gz file"),
        ("wrong column", "has no text under 'text'; its keys are story"),
        ("empty", "has no document in its train split"),
        ("too short", "has fewer than 32 tokens"),
        ("missing", "missing.txt does not exist"),
    ],
)
def test_harvest_of_a_text_that_is_none(refuses, tiny_model, tmp_path, kind: str, sentence: str) -> None:
    words = [*harvest_settings(tiny_model), *text_of(tmp_path, kind), "--out", tmp_path / "a"]
    assert sentence in refuses("harvest", *words)
    assert not (tmp_path / "a").exists()


def test_harvest_with_a_tokenizer_of_another_model(refuses, tiny_model, tmp_path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {"word" * n: 300 + n for n in range(1, 5)}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    sentence = refuses("harvest", *harvest_settings(folder), "--out", tmp_path / "a")
    assert "tokenizer" in sentence
    assert "don't belong together" in sentence
    assert not (tmp_path / "a").exists()


def test_harvest_into_a_folder_that_may_not_be_written(refuses, tiny_model, tmp_path, monkeypatch) -> None:
    make = Path.mkdir

    def denied(path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "a":
            raise PermissionError(errno.EACCES, "Permission denied")
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", denied)
    sentence = refuses("harvest", *harvest_settings(tiny_model), "--out", tmp_path / "a")
    assert "can't be written: permission is denied" in sentence


def test_harvest_onto_a_file(refuses, tiny_model, tmp_path) -> None:
    (tmp_path / "a").write_text("")
    assert "is a file" in refuses("harvest", *harvest_settings(tiny_model), "--out", tmp_path / "a")
    assert "can't be written" in refuses("harvest", *harvest_settings(tiny_model), "--out", tmp_path / "a" / "b")


def test_disk_that_fills_up_during_a_harvest(refuses, tiny_model, tmp_path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "the disk is full" in refuses("harvest", *harvest_settings(tiny_model), "--out", tmp_path / "a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == [".lock"]


def test_other_settings_for_a_run_that_exists(refuses, small, finished) -> None:
    sentence = refuses("train", *small, "--sae.k", 3, "--out", finished)
    assert "sae.k: 4 → 3" in sentence
    assert "--overwrite" in sentence


def test_out_below_a_file(refuses, small, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refuses("train", *small, "--out", tmp_path / "file" / "run")


def test_latent_to_steer_that_does_not_exist(refuses, run) -> None:
    assert "latents 0 to 31" in refuses("steer", run, "--latent", 32)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--latent", -1], "latent"),
        (["--latent", 1, "--method", "direction", "--mode", "zero"], "method direction can only add"),
        (["--latent", 1, "--mode", "scale", "--strength", -2], "strength of 0 or more"),
        (["--latent", 1, "--max-new-tokens", 0], "max_new_tokens"),
        ([], "latent"),
    ],
)
def test_steering_that_can_not_be(refuses, run, words: list[object], complaint: str) -> None:
    assert complaint in refuses("steer", run, *words)
