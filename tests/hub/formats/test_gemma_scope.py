"""Gemma Scope 1 and 2, from files laid down by hand as the repositories have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from saelab.errors import UserError
from saelab.hub import formats

D, F = 6, 20


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w_enc": (D, F), "w_dec": (F, D), "b_enc": (F,), "b_dec": (D,)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return drawn | {"threshold": torch.rand(F, generator=generator) + 0.2}


def by_hand(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Nothing is subtracted from x; latents at or below their threshold are off."""
    z = x @ w["w_enc"] + w["b_enc"]
    return (z.relu() * (z > w["threshold"])) @ w["w_dec"] + w["b_dec"]


def npz(folder: Path, arrays: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    plain: dict[str, Any] = {name: value.numpy() for name, value in arrays.items()}
    np.savez(folder / "params.npz", **plain)
    return folder


def scope_2(folder: Path, arrays: dict[str, torch.Tensor], **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in arrays.items()}, folder / "params.safetensors")
    config = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "hf_hook_point_in": "model.layers.7.output"}
    (folder / "config.json").write_text(json.dumps(config | settings))
    return folder


@pytest.mark.parametrize("capital", [True, False])
def test_gemma_scope_computes_what_its_weights_say(tmp_path: Path, capital: bool) -> None:
    w = weights()
    names = {name: name.replace("w_", "W_") if capital else name for name in w}
    folder = npz(tmp_path / "average_l0_71", {names[name]: value for name, value in w.items()})
    assert formats.recognise(folder).name == "gemma-scope"
    read = formats.read(folder)
    x = torch.randn(50, D)
    assert_close(read.dictionary(x), by_hand(w, x), rtol=1e-5, atol=1e-5)
    assert read.dictionary.site == "unknown"
    assert any("does not say what it reads" in note for note in read.notes)
    assert read.dictionary.config.policy["bos"] is True


def test_a_listing_holds_one_dictionary_per_params_file() -> None:
    names = ["layer_0/width_16k/average_l0_13/params.npz", "layer_0/width_16k/average_l0_71/params.npz", "README.md"]
    assert [entry.id for entry in formats.named("gemma-scope").found(names)] == [
        "layer_0/width_16k/average_l0_13", "layer_0/width_16k/average_l0_71",
    ]  # fmt: skip


def test_rescaled_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scaling_factor is not 1"):
        formats.read(npz(tmp_path / "a", weights() | {"scaling_factor": torch.full((F,), 2.0)}))
    same = formats.read(npz(tmp_path / "b", weights() | {"scaling_factor": torch.ones(F)}))
    assert same.dictionary.d_sae == F


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": torch.zeros(F - 1)},
        {"b_dec": torch.full((D,), torch.nan)},
        {"w_enc": torch.zeros(3)},
        {"w_dec": torch.zeros(F, 2, D)},
        {"extra": torch.zeros(2)},
        {"b_enc": torch.zeros(F, dtype=torch.int64)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    folder = npz(tmp_path / "a", weights() | change)
    with pytest.raises(UserError, match=next(iter(change))):
        formats.read(folder)


def test_pickles_compression_and_lies_about_size_are_refused(tmp_path: Path) -> None:
    folder = npz(tmp_path / "a", weights())
    arrays: dict[str, Any] = {name: value.numpy() for name, value in weights().items()}
    np.savez_compressed(folder / "params.npz", **arrays)
    with pytest.raises(UserError, match="compressed"):
        formats.read(folder)
    arrays["b_dec"] = np.array([{"x": 1}] * D, dtype=object)
    np.savez(folder / "params.npz", **arrays)
    with pytest.raises(UserError, match="not floating-point"):
        formats.read(folder)
    npz(folder, weights())
    content = (folder / "params.npz").read_bytes()
    lie = content.replace(f"'shape': ({F},), }}".encode(), b"'shape': (9999999,), }"[: len(f"'shape': ({F},), }}")])
    (folder / "params.npz").write_bytes(lie)
    with pytest.raises(UserError):
        formats.read(folder)


@pytest.mark.parametrize("keep", [0, 10, 200, 700])
def test_truncated_archives_are_refused(tmp_path: Path, keep: int) -> None:
    folder = npz(tmp_path / "a", weights())
    content = (folder / "params.npz").read_bytes()
    (folder / "params.npz").write_bytes(content[:keep])
    with pytest.raises(UserError, match="damaged"):
        formats.read(folder)


def test_gemma_scope_2_says_where_it_belongs(tmp_path: Path) -> None:
    w = weights()
    read = formats.read(scope_2(tmp_path / "resid", w, l0=13)).dictionary
    x = torch.randn(50, D)
    assert_close(read(x), by_hand(w, x), rtol=1e-5, atol=1e-5)
    assert (read.site, read.model_name, read.config.k) == ("blocks.7.resid_post", "google/gemma-3-1b-pt", 13)


@pytest.mark.parametrize(
    ("hook", "site"),
    [
        ("model.layers.3.self_attn.o_proj.input", "blocks.3.attn.z"),
        ("model.layers.3.post_feedforward_layernorm.output", "blocks.3.mlp_out"),
        ("model.layers.3.something.else", "model.layers.3.something.else"),
    ],
)
def test_gemma_scope_2_hook_points(tmp_path: Path, hook: str, site: str) -> None:
    assert formats.read(scope_2(tmp_path / "a", weights(), hf_hook_point_in=hook)).dictionary.site == site


def test_a_gemma_scope_2_transcoder_writes_elsewhere(tmp_path: Path) -> None:
    hooks = {
        "hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.3.post_feedforward_layernorm.output",
    }
    w = weights() | {"w_dec": torch.randn(F, 4), "b_dec": torch.randn(4)}
    read = formats.read(scope_2(tmp_path / "a", w, **hooks)).dictionary
    x = torch.randn(50, D)
    assert_close(read(x), by_hand(w, x), rtol=1e-5, atol=1e-5)
    assert read.config.target_sites == ("blocks.3.mlp_out",)
    with pytest.raises(UserError, match="skip connection"):
        formats.read(scope_2(tmp_path / "b", w | {"affine_skip_connection": torch.zeros(D, 4)}, **hooks))


def test_neither_is_written(tmp_path: Path) -> None:
    read = formats.read(npz(tmp_path / "a", weights()))
    for name in ("gemma-scope", "gemma-scope-2", "circuit-tracer"):
        with pytest.raises(UserError, match="does not write"):
            formats.named(name).write(read.dictionary, tmp_path / "out")
    assert not (tmp_path / "out").exists()
