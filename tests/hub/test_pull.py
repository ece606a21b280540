"""Pulling through the real client from the local Hub: a run, its record, and the same without a connection."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import close_session

import saelab as library
from saelab.dictionaries import artifact
from saelab.disk import RunPaths
from saelab.disk.tensors import read_tensors
from saelab.hub.formats import named
from tests.hub.conftest import weights_name
from tests.hub.server.local_hub import LocalHub
from tests.hub.server.repository import Blob

ID = "blocks.0.resid_post/small"


def put(hub: LocalHub, repo: str, folder: Path, at: str, ref: str = "main") -> None:
    """Commit a folder's files as they are."""
    repository = hub.repositories[repo]
    files = {
        f"{at}/{path.relative_to(folder).as_posix()}".lstrip("/"): Blob(
            path.read_bytes(), path.suffix == ".safetensors"
        )
        for path in folder.rglob("*")
        if path.is_file()
    }
    repository.commit(ref, repository.tree() | files, "by hand")


def test_it_becomes_a_run(saelab, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    out = tmp_path / "pulled"
    code, printed, err = saelab("pull", "alice/saes", "--out", out)
    assert code == 0, err
    for name in ("dictionary.safetensors", "golden.safetensors"):
        assert (out / "dictionary" / name).read_bytes() == (evaluated / "dictionary" / name).read_bytes()
        assert not (out / "dictionary" / name).is_symlink()
    assert {path.name for path in (out / "evaluation").iterdir()} == {
        "fidelity.json", "fidelity-documents.safetensors", "sparsity.json"
    }  # fmt: skip
    record = json.loads(RunPaths(out).pulled.read_text())
    head = published.repositories["alice/saes"].refs["main"]
    assert (record["repo"], record["id"], record["commit"], record["format"]) == ("alice/saes", ID, head, "saelab")
    assert record["files"][weights_name(evaluated)]["checksum"] == artifact.load(evaluated).config.weights_sha256
    assert f"alice/saes:{ID} as of {head[:12]}" in printed
    assert published.leaked == []


def test_it_can_be_evaluated(saelab, published: LocalHub, tmp_path: Path, tiny_model: Path) -> None:
    out = tmp_path / "pulled"
    assert saelab("pull", f"alice/saes:{ID}", "--out", out).code == 0
    words = ["--tokens", 128, "--resamples", 2, "--mean_tokens", 32, "--model", tiny_model, "--overwrite"]
    assert saelab("evaluate", out, *words).code == 0


def test_load_from_the_hub(published: LocalHub, evaluated: Path) -> None:
    x = read_tensors(evaluated / "dictionary/golden.safetensors")["x"]
    expected = artifact.load(evaluated)(x)
    for source in ("alice/saes", "alice/saes:blocks.0.resid_post", f"alice/saes:{ID}@main"):
        assert torch.equal(library.load(source)(x), expected)
    assert torch.equal(library.load(evaluated)(x), expected)


def test_only_what_is_needed_is_fetched(saelab, published: LocalHub, tmp_path: Path) -> None:
    published.requests.clear()
    assert saelab("pull", "alice/saes", "--out", tmp_path / "pulled").code == 0
    fetched = {request.rpartition("/main/")[2] for request in published.requests if "/resolve/" in request}
    assert not [name for name in fetched if "saelens" in name or name.endswith((".svg", ".md"))]


def test_several_are_listed(saelab, published: LocalHub, run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, run.parent / "other"))
    assert saelab("publish", other, "alice/saes").code == 0
    code, out, _ = saelab("pull", "alice/saes", "--out", tmp_path / "pulled")
    assert code == 0
    assert "holds 2 dictionaries; nothing was pulled" in out
    assert "blocks.0.resid_post/other" in out
    assert not (tmp_path / "pulled").exists()
    code, _, err = saelab("pull", "alice/saes:blocks.0.resid_post", "--out", tmp_path / "pulled")
    assert code == 2
    assert "name one: alice/saes:blocks.0.resid_post/other" in err
    assert "holds no 'blocks.1'" in saelab("pull", "alice/saes:blocks.1", "--out", tmp_path / "pulled").err
    assert "other" in saelab("inspect", "alice/saes").out


def test_a_revision_stays_what_it_was(saelab, published: LocalHub, run: Path, tmp_path: Path) -> None:
    first = published.repositories["alice/saes"].refs["main"]
    shutil.rmtree(run / "evaluation")
    assert saelab("publish", run, "alice/saes", "--force").code == 0
    assert saelab("pull", f"alice/saes:{ID}@{first}", "--out", tmp_path / "old").code == 0
    assert (tmp_path / "old/evaluation").is_dir()
    assert saelab("pull", f"alice/saes:{ID}@main", "--out", tmp_path / "new").code == 0
    assert not (tmp_path / "new/evaluation").exists()
    assert "has no such branch, tag or commit" in saelab("pull", "alice/saes@nope", "--out", tmp_path / "x").err


def test_without_a_connection_from_the_cache(
    saelab, published: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saelab("pull", "alice/saes", "--out", tmp_path / "first").code == 0
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    close_session()
    code, out, err = saelab("pull", "alice/saes", "--out", tmp_path / "second")
    assert code == 0, err
    assert "from the cache" in out
    first, second = (tmp_path / name / "dictionary/dictionary.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert library.load("alice/saes").d_sae == 24
    code, _, err = saelab("pull", "alice/never", "--out", tmp_path / "third")
    assert code == 2
    assert "the Hub can't be reached" in err
    assert not (tmp_path / "third").exists()


def test_another_tools_format(saelab, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    named("saelens").write(artifact.load(evaluated), theirs)
    put(published, "alice/saes", theirs, "layer_0/width_24")
    code, out, err = saelab("pull", "alice/saes:layer_0", "--out", tmp_path / "pulled")
    assert code == 0, err
    assert "format saelens" in out
    assert "note: " in out
    x = read_tensors(evaluated / "dictionary/golden.safetensors")["x"]
    torch.testing.assert_close(artifact.load(tmp_path / "pulled")(x), artifact.load(evaluated)(x))
    torch.testing.assert_close(library.load(str(theirs))(x), artifact.load(evaluated)(x))
    for source in ("alice/saes:layer_0", theirs):
        said = saelab("inspect", source).out
        assert "saelens" in said
        assert "24 latents" in " ".join(said.split())


def test_what_the_files_do_not_say(saelab, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    named("sparsify").write(artifact.load(evaluated), theirs)
    put(published, "alice/saes", theirs, "nameless")
    words = ["pull", "alice/saes:nameless", "--out", tmp_path / "pulled"]
    assert saelab(*words, "--site", "blocks.0.resid_post", "--model", "gpt2").code == 0
    config = artifact.load(tmp_path / "pulled").config
    assert (config.site, config.model) == ("blocks.0.resid_post", "gpt2")
    record = json.loads(RunPaths(tmp_path / "pulled").pulled.read_text())
    assert record["placed"] == {"site": "blocks.0.resid_post", "target": None, "model": "gpt2"}
    assert "was pulled from elsewhere" in saelab(*words).err
    code, _, err = saelab("pull", f"alice/saes:{ID}", "--out", tmp_path / "own", "--site", "blocks.1.mlp_out")
    assert code == 2
    assert "blocks.0.resid_post" in err
    assert not (tmp_path / "own").exists()


def test_a_site_that_only_the_folder_names(published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    named("sparsify").write(artifact.load(evaluated), tmp_path / "theirs")
    put(published, "alice/saes", tmp_path / "theirs", "layers.0")
    assert library.load("alice/saes:layers.0").site == "blocks.0.resid_post"


def test_dictionaries_side_by_side(saelab, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    for layer in ("one", "two"):
        saelens = tmp_path / layer
        named("saelens").write(artifact.load(evaluated), saelens)
        put(published, "alice/saes", saelens, f"set/{layer}")
    first = library.load("alice/saes:set/one")
    assert torch.equal(library.load("alice/saes:set/two").W_enc, first.W_enc)  # the cache holds both by now


def test_a_run_that_was_put_there_as_a_whole(saelab, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    put(published, "alice/saes", evaluated, "whole")
    assert saelab("pull", "alice/saes:whole", "--out", tmp_path / "pulled").code == 0
    assert (tmp_path / "pulled/evaluation/fidelity.json").is_file()


def test_the_folder_that_is_there_already(
    saelab, published: LocalHub, evaluated: Path, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pulled"
    assert saelab("pull", "alice/saes", "--out", out).code == 0
    kept = (out / "dictionary/dictionary.safetensors").stat().st_ino
    assert saelab("pull", "alice/saes", "--out", out).code == 0
    assert (out / "dictionary/dictionary.safetensors").stat().st_ino == kept
    assert saelab("publish", evaluated, "alice/other").code == 0
    assert "was pulled from elsewhere" in saelab("pull", "alice/other", "--out", out).err
    assert saelab("pull", "alice/other", "--out", out, "--overwrite").code == 0
    assert json.loads(RunPaths(out).pulled.read_text())["repo"] == "alice/other"
    assert "is not from a repository" in saelab("pull", "alice/saes", "--out", run, "--overwrite").err
    assert (run / "metrics.jsonl").exists()


def test_a_private_repository_needs_its_token(
    saelab, hub: LocalHub, evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saelab("publish", evaluated, "alice/hidden", "--private").code == 0
    monkeypatch.setenv("HF_TOKEN", "hf_somebodyelse")
    code, out, err = saelab("pull", "alice/hidden", "--out", tmp_path / "pulled")
    assert code == 2
    assert "there is no repository alice/hidden on the Hub, or it is private" in err
    assert "hf_somebodyelse" not in out + err


def test_the_index_only_if_wanted(saelab, hub: LocalHub, run: Path, tmp_path: Path) -> None:
    assert saelab("index", run, "--tokens", 256, "--device", "cpu").code == 0
    assert saelab("publish", run, "alice/saes", "--include-index").code == 0
    assert saelab("pull", "alice/saes", "--out", tmp_path / "a").code == 0
    assert not RunPaths(tmp_path / "a").features.exists()
    assert saelab("pull", "alice/saes", "--out", tmp_path / "b", "--include-index").code == 0
    ours, theirs = ({file.name for file in RunPaths(r).features.glob("*")} for r in (run, tmp_path / "b"))
    assert ours == theirs


@pytest.mark.parametrize("source", ["nothing", "a/b/c", "../a/b", "a/b:c:d", "a/b@c@d", ""])
def test_what_is_no_reference(saelab, hub: LocalHub, source: str) -> None:
    code, _, err = saelab("pull", source)
    assert code == 2
    assert "USER/NAME" in err
    assert not hub.requests


def test_a_path_that_is_not_there_is_not_only_looked_for_on_the_hub(hub: LocalHub) -> None:
    with pytest.raises(library.UserError, match="runs/nope is no folder here; as a repository: there is no repository"):
        library.load("runs/nope")
    with pytest.raises(library.UserError, match="/nope does not exist"):
        library.load("/nope")
