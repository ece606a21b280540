"""`ActivationSource`: what a trainer needs, whether activations lie on disk or are computed as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy


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
