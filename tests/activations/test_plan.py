"""What a harvest will take, said beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saelab.activations import HarvestConfig, Manifest
from saelab.activations.harvest import harvest
from saelab.activations.memory import Memory
from saelab.activations.plan import plan, refuse_if_too_large
from saelab.activations.sites import last_layer
from saelab.errors import UserError
from saelab.models import LanguageModel

Settings = Callable[..., HarvestConfig]
MEMORY = Memory(
    torch.device("cpu"), weights=3 * 10**9, one_pass=2 * 10**9, shard=10**9, free=10**10, free_on_device=10**10
)


def test_int8_and_subsampling_by_hand(tmp_path: Path, settings: Settings, model: LanguageModel):
    config = settings(dtype="int8", gradients=True, tokens=64_000, subsample=0.1)
    intended = plan(config, tmp_path, model)
    # Six standard deviations of a draw of 6,400 from 64,000 are 455.4. Of a token: at two sites 16 entries of 1 byte, a
    # scale of 4 and a gradient of 16 × 2; and 21 bytes for itself, stored or not.
    assert intended.stored == 6856
    assert intended.disk_bytes == 6856 * 2 * (16 + 4 + 32) + 64_000 * 21
    # A shard of 1,024 tokens: at most 160 of them stored, and the largest column, 32 bytes, twice more.
    assert intended.memory.shard == 160 * (2 * 52 + 2 * 32) + 1024 * 21
    assert any("6.86k of them drawn to be stored" in line for line in intended.lines())


def test_what_is_written_fits_the_plan(tmp_path: Path, settings: Settings, model: LanguageModel):
    config = settings(dtype="int8", subsample=0.5)
    intended = plan(config, tmp_path / "a", model, measure=True)
    assert not (tmp_path / "a").exists()
    out = harvest(config, tmp_path / "a", model=model)
    written = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    headers_and_sums = 1000 * sum(len(shard.files) for shard in Manifest.load(out).shards)
    assert intended.disk_bytes / 2 < written < intended.disk_bytes + headers_and_sums
    assert Manifest.load(out).n_kept <= intended.stored


def test_memory_counts_the_model(tmp_path: Path, settings: Settings, model: LanguageModel):
    memory = plan(settings(), tmp_path, model).memory
    assert memory.weights == model.size.weights_bytes > 0
    assert memory.one_pass == model.size.pass_bytes(8, 32, 2)  # 8 rows of 32 tokens, up to block 1
    assert plan(settings(sites=["blocks.0.resid_post"]), tmp_path, model).memory.one_pass == model.size.pass_bytes(
        8, 32, 1
    )
    backward = plan(settings(gradients=True), tmp_path, model).memory.one_pass
    assert backward == model.size.pass_bytes(8, 32, 2, gradients=True) > memory.one_pass


def test_memory_as_people_read_it():
    assert MEMORY.line() == "6.00 GB of 13.00 GB: weights 3.00, a forward pass 2.00, a shard 1.00"
    on_gpu = replace(MEMORY, device=torch.device("cuda", 1), free_on_device=7 * 10**9)
    assert on_gpu.line() == (
        "5.00 GB of 10.00 GB on cuda:1, 1.00 GB beside it: weights 3.00, a forward pass 2.00, a shard 1.00"
    )


def test_too_little_memory_is_refused():
    MEMORY.refuse()
    replace(MEMORY, free=3 * 10**9).refuse()
    with pytest.raises(
        UserError, match=r"needs 3\.00 GB of memory beside the model's weights, but only 2\.90 GB are free"
    ):
        replace(MEMORY, free=29 * 10**8).refuse()
    on_gpu = replace(MEMORY, device=torch.device("cuda", 0), free=10**9)
    on_gpu.refuse()  # a pass is not in the machine's memory
    with pytest.raises(UserError, match=r"2\.00 GB of memory of cuda:0"):
        replace(on_gpu, free_on_device=10**9).refuse()


def test_a_harvest_too_large_for_memory_writes_nothing(
    tmp_path: Path, settings: Settings, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saelab.activations.memory.available_memory", lambda device: 1000)
    with pytest.raises(UserError, match="smaller shard_tokens would fit"):
        harvest(settings(), tmp_path / "a", model=model)
    assert not (tmp_path / "a" / "manifest.json").exists()
    with pytest.raises(UserError, match="smaller batch"):
        refuse_if_too_large(plan(settings(), tmp_path, model), 0, tmp_path)


@pytest.mark.parametrize(
    ("patterns", "layer"),
    [
        (["blocks.2.resid_post"], 2),
        (["blocks.1.attn.z.head*", "blocks.11.mlp_out"], 11),
        (["blocks.*.resid_post", "blocks.1.mlp_out"], None),
        (["layer 3"], None),
    ],
)
def test_the_last_layer_that_patterns_name(patterns: list[str], layer: int | None):
    assert last_layer(patterns) == layer


def test_blocks_behind_the_sites_stay_on_the_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    asked: list[int | None] = []
    monkeypatch.setattr(LanguageModel, "load", lambda name, up_to=None, **rest: asked.append(up_to))
    from saelab.activations.plan import load_model

    load_model(settings(sites=["blocks.0.resid_post"]))
    load_model(settings(sites=["blocks.0.resid_post"], gradients=True))  # the loss is behind all blocks
    load_model(settings(sites=["blocks.*.resid_post"]))
    assert asked == [0, None, None]
