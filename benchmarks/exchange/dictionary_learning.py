"""dictionary_learning's classes, saved as its `trainSAE` does and loaded by its `load_dictionary`."""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import dictionary_learning.utils as theirs
import torch
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
from jaxtyping import Float
from torch import Tensor

from benchmarks.exchange import randomise

FORMAT = "dictionary-learning"
KINDS: dict[str, type] = {
    "AutoEncoder": theirs.AutoEncoder, "AutoEncoderNew": theirs.AutoEncoderNew,
    "GatedAutoEncoder": theirs.GatedAutoEncoder, "JumpReluAutoEncoder": theirs.JumpReluAutoEncoder,
    "AutoEncoderTopK": theirs.AutoEncoderTopK, "BatchTopKSAE": theirs.BatchTopKSAE,
    "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE,
}  # fmt: skip


def random(kind: str, d_in: int, d_sae: int, k: int, seed: int) -> Any:
    more = ([d_sae // 2, d_sae - d_sae // 2],) if kind.startswith("Matryoshka") else ()
    sae = KINDS[kind](d_in, d_sae, *((k,) if "TopK" in kind else ()), *more)
    randomise(sae, seed)
    if "TopK" in kind:
        sae.threshold = torch.tensor(0.4)
    return sae


def save(sae: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    kind = type(sae).__name__
    trainer = {
        "trainer_class": "test", "dict_class": kind, "activation_dim": sae.activation_dim, "dict_size": sae.dict_size,
        "layer": 3, "lm_name": "EleutherAI/pythia-70m-deduped", "submodule_name": "resid_post_layer_3",
    } | ({"k": sae.k.item()} if "TopK" in kind else {})  # fmt: skip
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    torch.save({name: tensor.cpu() for name, tensor in sae.state_dict().items()}, folder / "ae.pt")


def load(folder: Path) -> Any:
    with redirect_stdout(StringIO()):
        return theirs.load_dictionary(str(folder), "cpu")[0]


@torch.no_grad()
def reconstruct(sae: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d_out"]:
    return sae(x).float()


@torch.no_grad()
def codes(sae: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n F"]:
    return sae.encode(x).float()
