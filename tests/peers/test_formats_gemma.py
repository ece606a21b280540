"""Gemma Scope as SAELens' own loaders read it, against ours: the same files, the same reconstructions."""

# pyright: reportMissingImports=false

from __future__ import annotations

import warnings
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from saelab.hub import formats
from tests.hub.formats.test_gemma_scope import npz, scope_2, weights

pytestmark = [
    pytest.mark.skipif(find_spec("sae_lens") is None, reason="SAELens is not installed; `make test-peers`"),
    pytest.mark.filterwarnings("ignore"),
]


def saelens_reads(monkeypatch: pytest.MonkeyPatch, loader: str, folder: Path, repo: str, name: str) -> Any:
    """The SAE that SAELens makes of `folder`, which stands in for the repository's folder `name`."""
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def local(repo_id: str, filename: str, subfolder: str = "", **_: Any) -> str:
        return str(folder / Path(filename).name)

    monkeypatch.setattr(loaders, "hf_hub_download", local)
    shapes = {key: list(value.shape) for key, value in weights().items()}
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", lambda *_: shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, state, _ = getattr(loaders, loader)(repo, name, device="cpu")
        config |= {"d_in": shapes["w_enc"][0], "d_sae": shapes["w_enc"][1], "normalize_activations": "none"}
        sae = SAE.from_dict({key: value for key, value in config.items() if key in _known(config)})
    sae.load_state_dict(state)
    return sae


def _known(config: dict[str, Any]) -> set[str]:
    from sae_lens.registry import get_sae_class

    _, config_class = get_sae_class(config["architecture"])
    return {field.name for field in fields(config_class)} | {"architecture"}


def test_gemma_scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = npz(tmp_path / "sae", weights())
    place = "google/gemma-scope-2b-pt-res", "layer_3/width_16k/average_l0_7"
    theirs = saelens_reads(monkeypatch, "gemma_2_sae_huggingface_loader", folder, *place)
    x = torch.randn(200, 6)
    assert_close(formats.read(folder).dictionary(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_gemma_scope_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scope_2(tmp_path / "sae", weights())
    place = "google/gemma-scope-2-1b-pt", "resid_post/layer_7_width_16k_l0_small"
    theirs = saelens_reads(monkeypatch, "gemma_3_sae_huggingface_loader", folder, *place)
    x = torch.randn(200, 6)
    ours = formats.read(folder).dictionary
    assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert ours.site == "blocks.7.resid_post"
