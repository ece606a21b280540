"""Downloads that go wrong, and repositories that mean harm: one sentence, nothing outside, nothing half done."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from saelab.disk.tensors import read_tensors, write_tensors
from tests.hub.conftest import weights_name
from tests.hub.server.local_hub import LocalHub
from tests.hub.server.repository import Blob

ID = "blocks.0.resid_post/small"
STORAGE = "GET /storage"


def replaced(hub: LocalHub, name: str, content: bytes) -> None:
    """Commit another content for one file of alice/saes."""
    repository = hub.repositories["alice/saes"]
    repository.commit("main", repository.tree() | {f"{ID}/{name}": Blob(content, name.endswith("safetensors"))}, "evil")


@pytest.fixture
def refused(saelab, tmp_path: Path):
    """Pull what must be refused; gives the sentence."""

    def pull(source: str = "alice/saes") -> str:
        (tmp_path / "here").mkdir(exist_ok=True)
        code, _, err = saelab("pull", source, "--out", tmp_path / "here" / "pulled")
        assert code == 2, err
        assert "Traceback" not in err
        assert list((tmp_path / "here").iterdir()) == []
        return err.strip().splitlines()[-1]

    return pull


FAULTS = [
    (STORAGE, {"truncate": True}, "the connection to the Hub broke"),
    (STORAGE, {"flip": True}, "does not have the checksum that the Hub lists"),
    (STORAGE, {"status": 403}, "your token may not do this"),
    (STORAGE, {"status": 404}, "the Hub finds nothing there"),
    ("(HEAD|GET) /alice/saes/resolve", {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, "that it lists"),
    ("GET /api/models/alice/saes/tree", {"status": 403, "message": "no"}, "your token may not do this (no)"),
    ("GET /api/models/alice/saes", {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, "accept its terms"),
    ("GET /api/models/alice/saes/tree", {"status": 429, "headers": {"Retry-After": "3"}}, "in 3 seconds"),
]


@pytest.mark.parametrize(("request_", "fault", "sentence"), FAULTS)
def test_a_failed_download_and_its_repeat(
    saelab, refused, published: LocalHub, tmp_path: Path, request_: str, fault: dict[str, object], sentence: str
) -> None:
    broken = published.fail(request_, **fault)
    assert sentence in refused()
    broken.times = 0
    assert saelab("pull", "alice/saes", "--out", tmp_path / "here" / "pulled").code == 0


def test_a_slow_download(refused, published: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    published.fail(STORAGE, delay=0.5)
    assert "the connection to the Hub broke" in refused()


def test_a_cut_download_goes_on_where_it_was(saelab, published: LocalHub, tmp_path: Path) -> None:
    published.fail(STORAGE, truncate=True, times=1)
    assert saelab("pull", "alice/saes", "--out", tmp_path / "pulled").code == 0


@pytest.mark.parametrize("name", ["../../outside", "/outside", "blocks/../../outside", "C:\\outside", "a\nb"])
def test_names_that_leave_their_folder(saelab, refused, published: LocalHub, tmp_path: Path, name: str) -> None:
    evil = {"type": "file", "oid": "0" * 40, "size": 3}
    files = ("dictionary.safetensors", "config.json", "golden.safetensors", "evaluation/fidelity.json")
    published.repositories["alice/saes"].listed_extra += [{**evil, "path": f"{name}/{file}"} for file in files]
    code, _, _ = saelab("pull", f"alice/saes:{ID}", "--out", tmp_path / "pulled")
    assert code in (0, 2)
    assert not [*tmp_path.rglob("outside*"), *tmp_path.parent.glob("outside*"), *Path("/").glob("outside*")]
    refused(f"alice/saes:{name}".replace("\n", " "))


def test_a_report_with_a_name_that_climbs(saelab, published: LocalHub, tmp_path: Path) -> None:
    evil = {"type": "file", "oid": "0" * 40, "size": 3, "path": f"{ID}/evaluation/..\\..\\x.json"}
    published.repositories["alice/saes"].listed_extra.append(evil)
    assert saelab("pull", f"alice/saes:{ID}", "--out", tmp_path / "pulled").code == 0
    assert {path.name for path in (tmp_path / "pulled/evaluation").glob("*.json")} == {"fidelity.json", "sparsity.json"}


def test_sizes_are_held_against_the_disk(refused, published: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(total=10**9, used=10**9, free=10**4)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert "needs" in refused()
    assert published.asked("GET /storage") == 0


def test_weights_that_are_no_numbers(refused, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    tensors = read_tensors(evaluated / "dictionary/dictionary.safetensors")
    tensors["W_dec"][0, 0] = torch.nan
    write_tensors(tmp_path / "evil.safetensors", tensors)
    content = (tmp_path / "evil.safetensors").read_bytes()
    replaced(published, "dictionary.safetensors", content)
    assert "checksum in its config.json" in refused()
    config = json.loads((evaluated / "dictionary/config.json").read_text())
    config["weights_sha256"] = Blob(content, True).etag
    replaced(published, "config.json", json.dumps(config).encode())
    assert "W_dec holds NaN" in refused()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b'{"d_sae": 1e999}', b"\xff\xfe", b"null"])
def test_settings_that_are_none(refused, published: LocalHub, content: bytes) -> None:
    replaced(published, "config.json", content)
    refused()


def test_a_golden_pair_that_lies(refused, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    golden = read_tensors(evaluated / "dictionary/golden.safetensors")
    write_tensors(tmp_path / "golden.safetensors", golden | {"x_hat": golden["x_hat"] + 1})
    replaced(published, "golden.safetensors", (tmp_path / "golden.safetensors").read_bytes())
    assert "fails its golden check" in refused()


def test_what_lies_beside_is_left_out_when_it_can_not_be_read(saelab, published: LocalHub, tmp_path: Path) -> None:
    replaced(published, "evaluation/fidelity.json", b"[" * 100_000)
    replaced(published, "evaluation/extra.json", b'{"about": {"dictionary_sha256": "0"}}')
    replaced(published, "config.yaml", b"corpus: [[[" * 50_000)
    code, out, err = saelab("pull", "alice/saes", "--out", tmp_path / "pulled")
    assert code == 0, err
    assert {path.name for path in (tmp_path / "pulled/evaluation").iterdir()} == {"sparsity.json"}
    assert not (tmp_path / "pulled/config.yaml").exists()
    said = " ".join(out.split())
    for name in ("evaluation/fidelity.json", "evaluation/extra.json", "config.yaml"):
        assert f"note: {name} was left out" in said


def test_settings_of_training_name_no_place_here(saelab, published: LocalHub, tmp_path: Path) -> None:
    replaced(published, "config.yaml", b"model: /etc/secret\ncorpus: {source: ../../private.txt}\nactivations: /data\n")
    assert saelab("pull", "alice/saes", "--out", tmp_path / "pulled").code == 0
    settings = (tmp_path / "pulled/config.yaml").read_text()
    assert "/" not in settings
    assert "activations: null" in settings


def test_a_link_in_the_cache_is_not_written_through(
    saelab, published: LocalHub, evaluated: Path, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    out = tmp_path / "pulled"
    os.symlink(target, out)
    code, _, _ = saelab("pull", "alice/saes", "--out", out)
    assert code == 2
    assert target.read_text() == "mine"


def test_pickles_and_code_are_never_fetched(saelab, published: LocalHub, evaluated: Path, tmp_path: Path) -> None:
    for name in ("setup.py", "modeling.py", "weights.pkl", "pytorch_model.bin"):
        replaced(published, name, b"raise SystemExit")
    published.requests.clear()
    assert saelab("pull", "alice/saes", "--out", tmp_path / "pulled").code == 0
    assert not [request for request in published.requests if request.endswith((".py", ".pkl", ".bin"))]
    assert weights_name(evaluated).rpartition("/")[2] in os.listdir(tmp_path / "pulled/dictionary")
