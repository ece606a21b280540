"""Dictionaries carried between saelab and the real packages, and how far their reconstructions are apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.config import (
    ActivationAffinity,
    Allocation,
    DictionaryConfig,
    FeatureChoice,
    Gated,
    GradientAffinity,
    JumpRelu,
    MutualChoice,
    Relu,
    Target,
    TokenChoice,
)
from saelab.dictionaries.dictionary import Dictionary

ALLOCATIONS: dict[str, Allocation] = {
    "topk": TokenChoice(), "gradient": TokenChoice(), "relu": Relu(), "jumprelu": JumpRelu(),
    "mutual-choice": MutualChoice(), "feature-choice": FeatureChoice(), "gated": Gated(),
    "topk transcoder": TokenChoice(), "relu transcoder": Relu(), "jumprelu transcoder": JumpRelu(),
}  # fmt: skip
"""Our architectures; the name says what `random_dictionary` makes."""


class Peer(Protocol):
    """A module of this package: another tool's own classes, save and load."""

    FORMAT: str
    KINDS: Mapping[str, Any]
    """Its kinds of dictionaries."""

    def random(self, kind: str, d_in: int, d_sae: int, k: int, seed: int) -> Any:
        """One of its dictionaries with random weights that are not those of a beginning."""

    def save(self, sae: Any, folder: Path) -> None:
        """As the tool itself saves it."""

    def load(self, folder: Path) -> Any:
        """As the tool itself loads it."""

    def reconstruct(self, sae: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d_out"]:
        """What the tool makes of activations."""
        ...

    def codes(self, sae: Any, x: Float[Tensor, "n d"]) -> Float[Tensor, "n F"]:
        """What the tool encodes them as, dense."""
        ...


def random_dictionary(kind: str, d_in: int, d_sae: int, k: int, scale: float = 1.0, seed: int = 0) -> Dictionary:
    """A dictionary of ours with random weights, biases and thresholds, rows of the decoder of any norm."""
    generator = torch.Generator().manual_seed(seed)
    transcoder = kind.endswith("transcoder")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    allocation = ALLOCATIONS[kind]
    topk, gated = isinstance(allocation, TokenChoice), isinstance(allocation, Gated)
    positive = torch.rand(d_sae, generator=generator)
    threshold = {"mutual-choice": positive[:1].expand(d_sae), "relu": 0 * positive, "gated": 0 * positive}
    threshold["relu transcoder"] = 0 * positive
    config = DictionaryConfig(
        architecture=kind, d_in=d_in, d_sae=d_sae, k=k, allocation=allocation,
        affinity=GradientAffinity() if kind == "gradient" else ActivationAffinity(),
        rule="topk" if topk else "threshold", scale=scale, site="blocks.3.resid_post", model="gpt2",
        targets=(Target(site="blocks.3.mlp_out", width=d_in, scale=2 * scale),) if transcoder else (),
        model_fingerprint="", tokenizer_fingerprint="", policy={"context": 64, "bos": True, "exclude_first": 1},
        tokens_trained=1000, saelab_version="0",
    )  # fmt: skip
    return Dictionary(
        normal(d_sae, d_in) / d_in**0.5, normal(d_sae, d_in) * (0.2 + normal(d_sae, 1).square()), 0.3 * normal(d_sae),
        normal(d_in), torch.empty(0) if topk else threshold.get(kind, positive).contiguous(), config,
        *((normal(d_sae).exp(), 0.3 * normal(d_sae)) if gated else ()),
    )  # fmt: skip


def randomise(sae: Any, seed: int) -> None:
    """Give every weight of a module a value that its construction would not."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in sae.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        with torch.no_grad():
            weight.copy_(noise.abs() * 0.5 if name == "threshold" else noise * (weight.shape[-1] ** -0.5 + 0.1))


def distance(theirs: Float[Tensor, "n d"], ours: Float[Tensor, "n d"]) -> float:
    """The largest `|theirs − ours| / |ours|` over rows."""
    apart = (theirs - ours).double().norm(dim=1) / ours.double().norm(dim=1).clamp(min=1e-30)
    return float(apart.max())
