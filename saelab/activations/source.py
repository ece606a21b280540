"""`ActivationSource`: what a trainer needs, whether activations lie on disk or are computed as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.models import LanguageModel, Site


@dataclass(frozen=True)
class Origin:
    """Where activations come from; a dictionary stores it."""

    model: str
    model_revision: str | None
    model_fingerprint: str
    tokenizer_fingerprint: str
    site: str
    target: str
    """Site that is reconstructed; the same as `site` but for transcoders."""
    corpus: CorpusConfig
    policy: TokenPolicy


class ActivationSource(Protocol):
    """Shuffled activations of kept tokens, float32, on `device`."""

    @property
    def origin(self) -> Origin: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def d_in(self) -> int: ...

    @property
    def d_out(self) -> int: ...

    @property
    def n_tokens(self) -> int | None:
        """Kept tokens of an epoch; None when the corpus is endless."""
        ...

    def batches(self, batch_size: int, seed: int, start: int = 0) -> Iterator[ActivationBatch]:
        """Batches number `start`, `start + 1`, …, for ever; a pure function of (batch_size, seed, number)."""
        ...

    def sample(self, n: int) -> Float[Tensor, "n d_in"]:
        """The first `n` rows in shuffled order (fewer when there are fewer)."""
        ...


def open_source(
    activations: str | Path | None,
    model: str,
    site: str,
    corpus: CorpusConfig,
    policy: TokenPolicy,
    *,
    target: str | None = None,
    buffer: int = 262_144,
    device: str = "auto",
    dtype: str = "float32",
    gradients: bool = False,
    seed: int = 0,
) -> ActivationSource:
    """A harvested directory when `activations` names one (whose model, corpus and policy hold), else the model itself.

    Args:
        buffer: tokens that are held in memory and shuffled together.
        device: where batches are wanted, and where the model runs.
        seed: of `sample`; `batches` is told its own.
    """
    from saelab.activations.reader import ShardReader
    from saelab.activations.stream import ActivationStream

    wanted, reconstructed = Site.parse(site), None if target is None else Site.parse(target)
    if activations is not None:
        on = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        return ShardReader(
            activations, wanted, target=reconstructed, gradients=gradients, buffer_tokens=buffer, device=on, seed=seed
        )
    loaded = LanguageModel.load(model, dtype=dtype, device=device)
    return ActivationStream(
        loaded, corpus, policy, wanted, target=reconstructed, gradients=gradients, buffer_tokens=buffer, seed=seed
    )
