"""A directory of activations: what is in it, what is refused, and that it can be trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saelab.activations import HarvestConfig, Manifest
from saelab.activations.harvest import harvest
from saelab.activations.plan import plan
from saelab.corpora import CorpusConfig, TokenPolicy, pack
from saelab.disk import ActivationPaths, write_json
from saelab.errors import UserError
from saelab.models import LanguageModel
from tests.activations.conftest import POLICY, SITE

Settings = Callable[..., HarvestConfig]


def test_the_directory_holds_what_the_protocol_says(harvested: Path):
    manifest = Manifest.load(harvested)
    assert manifest.finished
    assert len(manifest.shards) == 7
    assert sorted(manifest.shards[0].files) == [
        "blocks.0.resid_post/grad-00000.safetensors",
        "blocks.0.resid_post/x-00000.safetensors",
        "blocks.1.mlp_out/grad-00000.safetensors",
        "blocks.1.mlp_out/x-00000.safetensors",
        "tokens-00000.safetensors",
    ]
    on_disk = {p.relative_to(harvested).as_posix() for p in harvested.rglob("*") if p.is_file()}
    assert on_disk - {".lock", "manifest.json"} == {name for shard in manifest.shards for name in shard.files}
    assert manifest.damage(harvested) == []


def test_token_files_are_the_packed_text(harvested: Path, model: LanguageModel, text: CorpusConfig):
    manifest = Manifest.load(harvested)
    shards = [load_file(harvested / f"tokens-{i:05d}.safetensors") for i in range(7)]
    packed = next(pack(text, model.tokenizer, POLICY, rows=200))  # type: ignore[arg-type]
    for name, tensor in (("ids", packed.ids), ("document", packed.documents), ("keep", packed.keep)):
        assert torch.equal(torch.cat([shard[name] for shard in shards]), tensor.flatten())
    assert torch.equal(torch.cat([s["position"] for s in shards]), torch.arange(32, dtype=torch.int32).repeat(200))
    assert torch.equal(
        torch.cat([s["row"] for s in shards]), torch.arange(200, dtype=torch.int32).repeat_interleave(32)
    )
    assert manifest.n_tokens == 6400
    assert manifest.n_kept == int(packed.keep.sum())


def test_scale_and_mean_are_those_of_the_stored_rows(harvested: Path):
    x = torch.cat([load_file(harvested / str(SITE) / f"x-{i:05d}.safetensors")["x"] for i in range(7)]).double()
    entry = Manifest.load(harvested).sites[str(SITE)]
    assert entry.scale == pytest.approx((16 / x.square().sum(1).mean().item()) ** 0.5, rel=1e-12)
    assert entry.mean is not None
    assert torch.allclose(torch.tensor(entry.mean, dtype=torch.float64), x.mean(0), atol=1e-12)


@pytest.mark.parametrize(("dtype", "error"), [("bf16", 2**-8), ("fp16", 2**-11)])
def test_smaller_types_are_near(
    tmp_path: Path, settings: Settings, model: LanguageModel, harvested: Path, dtype, error
):
    out = harvest(settings(dtype=dtype, tokens=1000), tmp_path / "small", model=model)
    name = f"{SITE}/x-00000.safetensors"
    exact, near = load_file(harvested / name)["x"], load_file(out / name)["x"]
    assert near.element_size() == 2
    assert torch.allclose(near.float(), exact[: len(near)], rtol=error, atol=1e-6)


def test_a_corpus_that_ends_gives_all_it_has(
    tmp_path: Path, settings: Settings, model: LanguageModel, text: CorpusConfig
):
    out = harvest(settings(tokens="10M", sites=[str(SITE)]), tmp_path / "all", model=model)
    rows = sum(len(rows) for rows in pack(text, model.tokenizer, POLICY))  # type: ignore[arg-type]
    assert Manifest.load(out).n_tokens == rows * 32


def test_the_same_command_again_does_nothing(
    tmp_path: Path, settings: Settings, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    out = harvest(settings(tokens=640), tmp_path / "a", model=model)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.name != ".lock"}
    monkeypatch.setattr("saelab.activations.harvest.load_model", None)  # it is not even loaded
    harvest(settings(tokens=640), out)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_are_refused_unless_overwritten(tmp_path: Path, settings: Settings, model: LanguageModel):
    out = harvest(settings(), tmp_path / "a", model=model)
    with pytest.raises(UserError, match=r"other settings \(tokens: 6400 → 640\)"):
        harvest(settings(tokens=640), out, model=model)
    harvest(settings(tokens=640, sites=[str(SITE)]), out, overwrite=True, model=model)
    assert Manifest.load(out).n_tokens == 640
    assert sorted(p.name for p in out.iterdir()) == [".lock", str(SITE), "manifest.json", "tokens-00000.safetensors"]


def test_another_model_under_the_same_name_is_refused(
    tmp_path: Path, settings: Settings, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    out = harvest(settings(), tmp_path / "a", model=model)
    unfinish(out, shards=[0, 1])
    monkeypatch.setattr(model, "fingerprint", "0" * 64)
    with pytest.raises(UserError, match="another version of model"):
        harvest(settings(), out, model=model)


def test_a_harvest_that_came_to_nothing_binds_nobody(tmp_path: Path, settings: Settings, model: LanguageModel):
    with pytest.raises(UserError, match="not finite"):
        harvest(settings(), tmp_path / "a", model=_Loud(model, float("nan")))  # type: ignore[arg-type]
    harvest(settings(tokens=640), tmp_path / "a", model=model)
    assert Manifest.load(tmp_path / "a").n_tokens == 640


def test_what_can_not_be_meant_leaves_no_trace(tmp_path: Path, settings: Settings, model: LanguageModel):
    for wrong in (
        {"sites": ["blocks.9.resid_post"]},
        {"corpus": CorpusConfig(source=str(tmp_path / "nowhere.txt"))},
        {"policy": TokenPolicy(context=64)},
    ):
        with pytest.raises(UserError):
            harvest(settings(**wrong), tmp_path / "a", model=model)
    assert not (tmp_path / "a").exists()


def test_a_damaged_manifest_can_be_overwritten(tmp_path: Path, settings: Settings, model: LanguageModel):
    out = harvest(settings(), tmp_path / "a", model=model)
    (out / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        harvest(settings(), out, model=model)
    harvest(settings(tokens=640), out, overwrite=True, model=model)
    assert Manifest.load(out).damage(out) == []


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, settings: Settings, model: LanguageModel):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds other things"):
            harvest(settings(), tmp_path, overwrite=overwrite, model=model)
    assert (tmp_path / "thesis.tex").exists()


def test_damage_is_named(harvested: Path, tmp_path: Path):
    out = Path(shutil.copytree(harvested, tmp_path / "copy"))
    name = f"{SITE}/x-00003.safetensors"
    content = bytearray((out / name).read_bytes())
    content[-5] ^= 1
    (out / name).write_bytes(content)
    (out / "tokens-00001.safetensors").unlink()
    assert [str(found) for found in Manifest.load(out).damage(out)] == [
        "shard 1: tokens-00001.safetensors is missing",
        f"shard 3: {name} is damaged",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is damaged"),
        ('{"schema_version": 99}', "schema version 99; this saelab reads"),
        ("[]", "schema version None"),
    ],
)
def test_a_manifest_that_can_not_be_read(tmp_path: Path, content: str, sentence: str):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        Manifest.load(tmp_path)


def test_a_full_disk_is_seen_before_it_is_full(
    tmp_path: Path, settings: Settings, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"needs 0\.00 GB but .* has 0\.00 GB free"):
        harvest(settings(), tmp_path / "a", model=model)
    assert not (tmp_path / "a" / "manifest.json").exists()


def test_the_plan_is_what_is_written(tmp_path: Path, settings: Settings, model: LanguageModel):
    config = settings(gradients=True)
    intended = plan(config, tmp_path / "a", model, measure=True)
    assert not (tmp_path / "a").exists()
    out = harvest(config, tmp_path / "a", model=model)
    written = sum(p.stat().st_size for p in out.rglob("*.safetensors"))
    manifest = Manifest.load(out)
    assert (intended.tokens, intended.rows, intended.shards) == (6400, 200, 7)
    # 4 bytes × 16 values × (x and gradient) × 2 sites, and 21 bytes for the token itself
    assert intended.disk_bytes == 6400 * (4 * 16 * 2 * 2 + 21)
    headers = 2000 * len(manifest.shards) * 5
    assert written - headers < intended.disk_bytes * manifest.n_kept / manifest.n_tokens * 1.01
    assert intended.seconds
    assert any("tokens/s" in line for line in intended.lines())


def test_activations_too_large_for_fp16_are_named(tmp_path: Path, settings: Settings, model: LanguageModel):
    with pytest.raises(UserError, match="exceed what fp16 can hold"):
        harvest(settings(dtype="fp16"), tmp_path / "a", model=_Loud(model, 1e6))  # type: ignore[arg-type]


def test_activations_that_are_not_numbers_are_named(tmp_path: Path, settings: Settings, model: LanguageModel):
    with pytest.raises(UserError, match="not finite"):
        harvest(settings(), tmp_path / "a", model=_Loud(model, float("nan")))  # type: ignore[arg-type]


class _Loud:
    """A model with activations that are `factor` times as large."""

    def __init__(self, model: LanguageModel, factor: float) -> None:
        self.model, self.factor = model, factor

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def activations(self, tokens, sites):
        return {site: x * self.factor for site, x in self.model.activations(tokens, sites).items()}


def unfinish(out: Path, shards: Collection[int]) -> None:
    """Put a directory back to where it had only these of its shards."""
    content = json.loads((out / "manifest.json").read_text())
    listed = content["shards"]
    places = [shard["start"] for shard in listed] + [content["next"]]
    for number, shard in enumerate(listed):
        if number in shards:
            write_json(ActivationPaths(out).entry(number), {"shard": shard, "next": places[number + 1]})
        else:
            for name in shard["files"]:
                (out / name).unlink()
    empty = {"finished": False, "shards": [], "n_tokens": 0, "n_kept": 0, "left_over": None, "next": places[0]}
    for site in content["sites"].values():
        site |= {"scale": None, "mean": None, "storage_error": None}
    (out / "manifest.json").write_text(json.dumps(content | empty))
