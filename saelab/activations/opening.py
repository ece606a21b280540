"""`open_pass`, `open_source`: the activations that settings name, from disk or from the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from saelab.activations.reader import ShardReader
from saelab.activations.shuffle import ShuffledGroups
from saelab.activations.sites import last_layer
from saelab.activations.source import ActivationSource, Feed
from saelab.activations.stream import ActivationStream
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy
from saelab.models import LanguageModel, Site


def open_pass(
    activations: str | Path | None,
    model: str,
    feeds: Sequence[Feed],
    corpus: CorpusConfig,
    policy: TokenPolicy,
    *,
    buffer: int = 262_144,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    overlap: bool | None = None,
) -> ShuffledGroups:
    """A harvested directory when `activations` names one (whose model, corpus and policy hold), else the model itself.

    Args:
        buffer: tokens that are held in memory and shuffled together.
        device: where batches are wanted, and where the model runs.
        seed: of `sample`; `batches` is told its own.
        overlap: as `ActivationStream`.

    Raises:
        UserError: the directory or the model does not have what a feed wants, or can't be read.
    """
    if activations is not None:
        on = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        return ShardReader(activations, feeds, buffer_tokens=buffer, device=on, seed=seed)
    sites = [str(site) for feed in feeds for site in feed.sites]
    last = last_layer(sites if policy.sink_site is None else [*sites, policy.sink_site])
    up_to = None if any(feed.gradients for feed in feeds) else last
    loaded = LanguageModel.load(model, dtype=dtype, device=device, up_to=up_to)
    return ActivationStream(loaded, corpus, policy, feeds, buffer_tokens=buffer, seed=seed, overlap=overlap)


def open_source(
    activations: str | Path | None,
    model: str,
    site: str,
    corpus: CorpusConfig,
    policy: TokenPolicy,
    *,
    targets: Sequence[str] = (),
    gradients: bool = False,
    buffer: int = 262_144,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
) -> ActivationSource:
    """The same for one feed, given by the names of its sites."""
    feed = Feed(Site.parse(site), tuple(map(Site.parse, targets)), gradients)
    return ActivationSource(
        open_pass(activations, model, [feed], corpus, policy, buffer=buffer, device=device, dtype=dtype, seed=seed)
    )
