"""circuit-tracer's transcoder sets, from files laid down by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch.testing import assert_close

from saelab.errors import UserError
from saelab.hub import formats

D, OUT, F = 6, 5, 20


def weights(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (F, D), "W_dec": (F, OUT), "b_enc": (F,), "b_dec": (OUT,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} | more


def laid_down(folder: Path, tensors: dict[str, torch.Tensor], layer: int = 3, **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"layer_{layer}.safetensors")
    config = {
        "model_name": "google/gemma-2-2b", "model_kind": "transcoder_set",
        "feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out",
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config | settings))
    return folder


def test_relu_transcoders_compute_what_their_weights_say(tmp_path: Path) -> None:
    w = weights()
    folder = laid_down(tmp_path / "set", w)
    assert formats.recognise(folder).name == "circuit-tracer"
    read = formats.read(folder).dictionary
    x = torch.randn(50, D)
    assert_close(read(x), (x @ w["W_enc"].T + w["b_enc"]).relu() @ w["W_dec"] + w["b_dec"], rtol=1e-5, atol=1e-5)
    assert (read.site, read.config.target_sites) == ("blocks.3.resid_mid", ("blocks.3.mlp_out",))
    assert read.model_name == "google/gemma-2-2b"


@pytest.mark.parametrize("shape", [(F,), (1, F), (1,), ()])
def test_jumprelu_thresholds_of_every_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    w = weights() | {"activation_function.threshold": torch.rand(shape) + 0.3}
    read = formats.read(laid_down(tmp_path / "set", w)).dictionary
    x = torch.randn(50, D)
    z = x @ w["W_enc"].T + w["b_enc"]
    kept = z * (z > w["activation_function.threshold"].reshape(-1))
    assert_close(read(x), kept @ w["W_dec"] + w["b_dec"], rtol=1e-5, atol=1e-5)


def test_topk(tmp_path: Path) -> None:
    w = weights()
    read = formats.read(laid_down(tmp_path / "set", w, activation="topk", k=4)).dictionary
    x = torch.randn(50, D)
    z = x @ w["W_enc"].T + w["b_enc"]
    top = z.topk(4, dim=1)
    kept = torch.zeros_like(z).scatter(1, top.indices, top.values.relu())
    assert_close(read(x), kept @ w["W_dec"] + w["b_dec"], rtol=1e-5, atol=1e-5)
    assert read.config.k == 4


def test_a_listing_holds_one_entry_a_layer() -> None:
    names = ["set/config.yaml", "set/layer_10.safetensors", "set/layer_2.safetensors", "set/sub/layer_1.safetensors"]
    found = formats.named("circuit-tracer").found(names)
    assert [entry.id for entry in found] == ["set/layer_2", "set/layer_10"]
    assert found[0].files == ("set/config.yaml", "set/layer_2.safetensors")


def test_several_layers_are_read_one_at_a_time(tmp_path: Path) -> None:
    laid_down(tmp_path / "set", weights(), layer=1)
    folder = laid_down(tmp_path / "set", weights(), layer=2)
    with pytest.raises(UserError, match="one at a time"):
        formats.read(folder)


@pytest.mark.parametrize(
    ("change", "settings", "says"),
    [
        ({"W_skip": torch.zeros(OUT, D)}, {}, "skip connection"),
        ({}, {"model_kind": "cross_layer_transcoder"}, "several layers"),
        ({}, {"activation": "gelu"}, "gelu"),
        ({}, {"activation": "jumprelu"}, "no thresholds"),
        ({"activation_function.threshold": -torch.ones(F)}, {}, "negative"),
        ({"activation_function.threshold": torch.ones(F - 1)}, {}, "shape"),
        ({"b_enc": torch.full((F,), torch.inf)}, {}, "b_enc"),
        ({"W_enc": torch.zeros(F)}, {}, "W_enc"),
        ({"other": torch.zeros(1)}, {}, "other"),
        ({}, {"activation": "topk", "k": F + 1}, "k must be"),
    ],
)
def test_what_a_dictionary_can_not_be_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor], settings: dict[str, Any], says: str
) -> None:
    folder = laid_down(tmp_path / "set", weights() | change, **settings)
    with pytest.raises(UserError, match=says):
        formats.read(folder)
