"""`open_source`: the activations that settings name, from disk or from the model itself."""

from __future__ import annotations

from pathlib import Path

import torch

from saelab.activations.reader import ShardReader
from saelab.activations.source import ActivationSource
from saelab.activations.stream import ActivationStream
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.models import LanguageModel, Site


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
