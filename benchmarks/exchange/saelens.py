"""SAELens' own classes, saved by `save_model` (or, trained by batchtopk, `save_inference_model`)."""

# pyright: reportMissingImports=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import sae_lens
import torch
from jaxtyping import Float
from sae_lens.registry import get_sae_class, get_sae_training_class
from torch import Tensor

from benchmarks.exchange import randomise

FORMAT = "saelens"
KINDS: dict[str, dict[str, Any]] = {
    "standard": {}, "standard, b_dec not subtracted": {"apply_b_dec_to_input": False}, "topk": {},
    "topk, rescaled": {"rescale_acts_by_decoder_norm": True}, "jumprelu": {},
    "jumprelu, b_dec not subtracted": {"apply_b_dec_to_input": False}, "gated": {},
    "gated, b_dec not subtracted": {"apply_b_dec_to_input": False}, "batchtopk": {}, "matryoshka_batchtopk": {},
    "transcoder": {"apply_b_dec_to_input": False}, "jumprelu_transcoder": {"apply_b_dec_to_input": False},
}  # fmt: skip


def random(kind: str, d_in: int, d_sae: int, k: int, seed: int) -> Any:
    architecture = kind.partition(",")[0]
    trained = architecture.endswith("batchtopk")
    cls, config_cls = (get_sae_training_class if trained else get_sae_class)(architecture)
    more = KINDS[kind] | ({"k": k} if "topk" in architecture else {})
    if architecture.endswith("transcoder"):
        more = more | {"d_out": d_in + 3}
    if architecture == "matryoshka_batchtopk":
        more = more | {"matryoshka_widths": [d_sae // 2, d_sae]}
    sae = cls(config_cls(d_in=d_in, d_sae=d_sae, **more))
    sae.cfg.metadata.hook_name = "blocks.3.hook_resid_post"
    sae.cfg.metadata.hook_name_out = "blocks.3.hook_mlp_out"
    sae.cfg.metadata.model_name = "gpt2-small"
    randomise(sae, seed)
    if trained:
        sae.topk_threshold = torch.tensor(0.4, dtype=sae.topk_threshold.dtype)
    return sae


def save(sae: Any, folder: Path) -> None:
    (sae.save_inference_model if hasattr(sae, "save_inference_model") else sae.save_model)(folder)


def load(folder: Path) -> Any:
    return sae_lens.SAE.load_from_disk(folder)


@torch.no_grad()
def reconstruct(sae: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d_out"]:
    return sae(x).float()


@torch.no_grad()
def codes(sae: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n F"]:
    return sae.encode(x).float()
