"""sparsify's `SparseCoder`, saved by its `save_to_disk`."""

# pyright: reportMissingImports=false, reportCallIssue=false, reportAttributeAccessIssue=false
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # read when sparsify is imported; its kernels need a GPU

from sparsify import SparseCoder, SparseCoderConfig

from benchmarks.exchange import randomise

FORMAT = "sparsify"
KINDS: dict[str, dict[str, Any]] = {"topk": {}, "topk transcoder": {"transcode": True}}


def random(kind: str, d_in: int, d_sae: int, k: int, seed: int) -> Any:
    sae = SparseCoder(d_in, SparseCoderConfig(num_latents=d_sae, k=k, **KINDS[kind]))
    randomise(sae, seed)
    return sae


def save(sae: Any, folder: Path) -> None:
    sae.save_to_disk(folder)


def load(folder: Path) -> Any:
    return SparseCoder.load_from_disk(folder)


@torch.no_grad()
def reconstruct(sae: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d_out"]:
    return sae(x.to(sae.dtype)).sae_out.float()


@torch.no_grad()
def codes(sae: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n F"]:
    chosen = sae.encode(x.to(sae.dtype))
    dense = torch.zeros(len(x), sae.num_latents)
    return dense.scatter_(1, chosen.top_indices, chosen.top_acts.float())
