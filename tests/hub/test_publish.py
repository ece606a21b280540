"""Publishing through the real client to the local Hub: what arrives, what the card says, and what is never sent."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import saelab as library
from saelab.dictionaries import artifact
from saelab.disk.tensors import read_tensors, write_tensors
from tests.hub.conftest import weights_name
from tests.hub.server.local_hub import TOKEN, LocalHub

ID = "blocks.0.resid_post/small"


def card_of(hub: LocalHub, revision: str = "main") -> str:
    return hub.repositories["alice/saes"].tree(revision)["README.md"].content.decode()


def code_in(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, flags=re.S)


def test_a_run_arrives_whole(published: LocalHub, evaluated: Path) -> None:
    tree = published.repositories["alice/saes"].tree()
    assert tree[weights_name(evaluated)].content == (evaluated / "dictionary/dictionary.safetensors").read_bytes()
    names = {name.removeprefix(f"{ID}/") for name in published.repositories["alice/saes"].names()}
    assert names == {
        "README.md", "config.json", "config.yaml", "dictionary.safetensors", "golden.safetensors", "publication.json",
        "evaluation/fidelity.json", "evaluation/fidelity-documents.safetensors", "evaluation/sparsity.json",
        "figures/density.svg", "figures/l0.svg", "saelens/cfg.json", "saelens/sae_weights.safetensors",
    }  # fmt: skip


def test_nothing_of_this_machine_and_no_token_goes_out(
    saelab, hub: LocalHub, evaluated: Path, tiny_model: Path
) -> None:
    code, out, err = saelab("publish", evaluated, "alice/saes")
    assert code == 0
    assert (evaluated / "config.yaml").read_text().count(str(tiny_model)) == 1
    everything = b"".join(blob.content for blob in hub.repositories["alice/saes"].tree().values())
    for secret in (TOKEN, str(tiny_model), str(evaluated), str(Path.home() / "x")[:-1]):
        assert secret.encode() not in everything
    assert TOKEN not in out + err
    assert "config.yaml: the local path in model was cut to its last part" in card_of(hub)


def test_the_card_says_what_it_is(published: LocalHub) -> None:
    card = ModelCard(card_of(published))
    assert card.data.get("library_name") == "saelab"
    assert card.data.get("license") == "mit"
    assert {"saelab", "sparse-autoencoder", "topk"} <= set(card.data.get("tags") or [])
    assert card.data.get("base_model") is None  # a folder of this machine is no model on the Hub
    assert {result.metric_type for result in card.data.get("eval_results") or []} >= {"delta_ce", "fvu", "l0"}
    linked = re.findall(r"!\[.*?\]\((.*?)\)", card.text)
    assert len(linked) == 2
    assert set(linked) <= set(published.repositories["alice/saes"].names())


def test_its_snippets_run(published: LocalHub, evaluated: Path) -> None:
    dictionary = artifact.load(evaluated)
    x = read_tensors(evaluated / "dictionary/golden.safetensors")["x"]
    with_saelab, with_saelens, with_torch = code_in(card_of(published))
    names = {"x": x}
    exec(with_saelab, names)
    torch.testing.assert_close(names["x_hat"], dictionary(x), rtol=0, atol=0)
    exec(with_torch, names)
    codes = names["encode"](x)  # type: ignore[operator]
    torch.testing.assert_close(codes, dictionary.encode(x).to_dense())
    torch.testing.assert_close(names["decode"](codes), dictionary(x))  # type: ignore[operator]
    assert f'SAE.from_pretrained("alice/saes", "{ID}/saelens")' in with_saelens


def test_a_dry_run_is_what_would_be_sent(saelab, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    before = sum(published.requests.values())
    assert saelab("publish", evaluated, "alice/saes", "--license", "mit", "--dry-run", tmp_path / "dry").code == 0
    assert sum(published.requests.values()) == before
    files = {path.relative_to(tmp_path / "dry").as_posix(): path for path in (tmp_path / "dry").rglob("*.*")}
    sent = published.repositories["alice/saes"]
    for name in sent.names():
        assert files[name].read_bytes() == sent.tree()[name].content
        assert not files[name].is_symlink()
    assert "exists already" in saelab("publish", evaluated, "alice/saes", "--dry-run", tmp_path / "dry").err


def test_the_same_again_changes_nothing(saelab, published: LocalHub, evaluated: Path) -> None:
    head = published.repositories["alice/saes"].refs["main"]
    assert saelab("publish", evaluated, "alice/saes").code == 0  # the licence of before stays
    assert published.repositories["alice/saes"].refs["main"] == head


def test_what_is_gone_is_removed_and_the_rest_stays(saelab, published: LocalHub, run: Path) -> None:
    (run / "evaluation/sparsity.json").unlink()
    assert saelab("publish", run, "alice/saes").code == 0
    assert f"{ID}/evaluation/sparsity.json" not in published.repositories["alice/saes"].names()
    other = Path(shutil.copytree(run, run.parent / "other"))
    assert saelab("publish", other, "alice/saes").code == 0
    names, card = published.repositories["alice/saes"].names(), card_of(published)
    assert {weights_name(run), weights_name(other), "sparsity-fidelity.svg"} <= set(names)
    assert f"## {ID}\n" in card
    assert "## blocks.0.resid_post/other\n" in card
    assert ModelCard(card).data.get("license") == "mit"


def test_several_at_once(saelab, hub: LocalHub, run: Path) -> None:
    other = Path(shutil.copytree(run, run.parent / "other"))
    twin = Path(shutil.copytree(run, run.parent / "elsewhere" / "small"))
    assert saelab("publish", run, other, "alice/saes", "--only-saelab").code == 0
    assert hub.asked("POST /api/models/alice/saes/commit") == 1
    assert "SAELens can't load it: it was left out" in card_of(hub)
    code, _, err = saelab("publish", run, twin, "alice/more")
    assert code == 2
    assert "rename one of the folders" in err
    assert "alice/more" not in hub.repositories


def test_without_an_evaluation_only_by_force(saelab, hub: LocalHub, run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    code, _, err = saelab("publish", run, "alice/saes")
    assert code == 2
    assert "it has no evaluation" in err
    assert not hub.repositories
    assert saelab("publish", run, "alice/saes", "--force").code == 0
    assert "**Published with --force:** it has no evaluation" in card_of(hub)


def test_an_evaluation_of_other_weights_is_none(saelab, hub: LocalHub, run: Path) -> None:
    report = run / "evaluation/sparsity.json"
    content = json.loads(report.read_text())
    content["about"]["dictionary_sha256"] = "0" * 64
    report.write_text(json.dumps(content))
    code, _, err = saelab("publish", run, "alice/saes")
    assert code == 2
    assert "sparsity.json was measured on other weights" in err
    assert saelab("publish", run, "alice/saes", "--force").code == 0
    assert f"{ID}/evaluation/sparsity.json" not in hub.repositories["alice/saes"].names()


def test_a_failed_golden_check_is_never_published(saelab, hub: LocalHub, run: Path) -> None:
    golden = read_tensors(run / "dictionary/golden.safetensors")
    write_tensors(run / "dictionary/golden.safetensors", golden | {"x_hat": golden["x_hat"] * 1.01})
    code, _, err = saelab("publish", run, "alice/saes", "--force")
    assert code == 2
    assert "fails its golden check" in err
    assert not hub.requests


def test_private_branch_pull_request_message(saelab, hub: LocalHub, evaluated: Path) -> None:
    assert saelab("publish", evaluated, "alice/hidden", "--private", "--message", "first").code == 0
    assert hub.repositories["alice/hidden"].private
    assert hub.repositories["alice/hidden"].messages[-1] == "first"
    assert saelab("publish", evaluated, "alice/hidden", "--branch", "next").code == 0
    assert hub.repositories["alice/hidden"].names("next")
    code, out, _ = saelab("publish", evaluated, "alice/hidden", "--pull-request", "--license", "cc0-1.0")
    assert code == 0
    assert out.strip().endswith("/alice/hidden/discussions/1")
    assert "cc0" not in hub.repositories["alice/hidden"].tree()["README.md"].content.decode()
    assert "cc0" in hub.repositories["alice/hidden"].tree("refs/pr/1")["README.md"].content.decode()


def test_private_is_never_public(saelab, published: LocalHub, evaluated: Path) -> None:
    head = published.repositories["alice/saes"].refs["main"]
    code, _, err = saelab("publish", evaluated, "alice/saes", "--private", "--license", "cc0-1.0")
    assert code == 2
    assert "is public" in err
    assert published.repositories["alice/saes"].refs["main"] == head


def test_the_index_only_if_wanted(saelab, hub: LocalHub, run: Path) -> None:
    assert "has no feature index" in saelab("publish", run, "alice/saes", "--include-index").err
    assert saelab("index", run, "--tokens", 512, "--device", "cpu").code == 0
    assert saelab("publish", run, "alice/saes").code == 0
    assert not [name for name in hub.repositories["alice/saes"].names() if name.endswith(".parquet")]
    assert saelab("publish", run, "alice/saes", "--include-index").code == 0
    names = hub.repositories["alice/saes"].names()
    assert {f"{ID}/features/{name}" for name in ("index.json", "latents.parquet", "activations.parquet")} <= set(names)
    assert "holds passages of the text" in card_of(hub)


def test_the_clients_pipeline_does_it_too(
    saelab, hub: LocalHub, evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)  # as on the real Hub
    hub.large_files = False  # but for the storage behind it
    code, out, err = saelab("publish", evaluated, "alice/saes")
    assert code == 0, err
    assert "/alice/saes/commit/" in out
    assert weights_name(evaluated) in hub.repositories["alice/saes"].names()
    hub.large_files = True
    code, _, err = saelab("publish", evaluated, "alice/more")
    assert code == 2
    assert "publishing to alice/more failed" in err


def test_a_branch_is_named_in_its_card(saelab, hub: LocalHub, evaluated: Path) -> None:
    assert saelab("publish", evaluated, "alice/saes", "--branch", "v2").code == 0
    assert hub.repositories["alice/saes"].names() == []
    assert f'saelab.load("alice/saes:{ID}@v2")' in card_of(hub, "v2")
    assert 'dictionary.safetensors", revision="v2")' in card_of(hub, "v2")
    assert "SAELens loads from the main branch only" in card_of(hub, "v2")


def test_a_token_in_a_run_stops_everything(saelab, hub: LocalHub, run: Path) -> None:
    config = run / "config.yaml"
    config.write_text(config.read_text() + f"note: {TOKEN}\n")
    code, out, err = saelab("publish", run, "alice/saes")
    assert code == 2
    assert f"{ID}/config.yaml would hold a token" in err
    assert TOKEN not in out + err
    assert hub.asked("POST /api/models/alice/saes/commit") == 0


def test_the_base_model_by_name(saelab, hub: LocalHub, evaluated: Path) -> None:
    assert saelab("publish", evaluated, "alice/saes", "--base-model", "openai-community/gpt2").code == 0
    assert ModelCard(card_of(hub)).data.get("base_model") == "openai-community/gpt2"
    assert library.load(f"alice/saes:{ID}").model_name == "openai-community/gpt2"


@pytest.mark.parametrize("words", [["alice/saes"], [], ["RUN", "no-slash"], ["RUN", "a/b/c"], ["RUN", "a/b:c"]])
def test_what_is_no_repository(saelab, hub: LocalHub, evaluated: Path, words: list[str]) -> None:
    code, _, err = saelab("publish", *(evaluated if word == "RUN" else word for word in words))
    assert code == 2
    assert "USER/NAME" in err or "user/name" in err
    assert not hub.requests


def test_a_dictionary_that_saelens_can_not_express_says_why(saelab, hub: LocalHub, run: Path) -> None:
    dictionary, x = artifact.load(run), read_tensors(run / "dictionary/golden.safetensors")["x"]
    target = {"site": "blocks.1.resid_post", "width": 16, "scale": 1.0}
    config = type(dictionary.config).model_validate(dictionary.config.model_dump() | {"targets": [target] * 2})
    both = torch.cat([dictionary.W_dec] * 2, dim=1), torch.cat([dictionary.b_dec] * 2)
    two = replace(dictionary, W_dec=both[0], b_dec=both[1], config=config)
    shutil.rmtree(run / "dictionary")
    two.save(run / "dictionary", x)
    shutil.rmtree(run / "evaluation")
    assert saelab("publish", run, "alice/saes", "--force").code == 0
    assert "SAELens can't load it: " in card_of(hub)
    assert not [name for name in hub.repositories["alice/saes"].names() if "/saelens/" in name]
