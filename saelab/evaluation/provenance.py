"""Under which conditions a report's numbers were taken."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class ReportPart(BaseModel):
    """Frozen, and nothing unknown may slip in when a report is read back."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Provenance(ReportPart):
    """The conditions that the numbers hold under; two reports compare only where these agree."""

    dictionary: str
    """Name of the dictionary: its run's folder."""
    dictionary_sha256: str | None
    """Checksum of its weight file; null when it was never saved."""
    architecture: str
    """Name of the architecture (preset) that it was trained as."""
    d_in: int
    """Width of the activations."""
    d_sae: int
    """Number of latents."""
    k: int | None = None
    """Budget of active latents per token that it was trained to keep; null for one without a budget."""
    site: str
    """Where in the model it reads and, unless it has targets, writes."""
    targets: tuple[str, ...] = ()
    """Where a transcoder writes: what is substituted, ablated and compared lies there."""
    selection_rule: str
    """How a token's latents are chosen in this evaluation; never one that sees the loss or the next token."""
    model: str
    """Name or folder of the language model."""
    model_revision: str | None
    """Revision of the model on the Hub, where there is one."""
    model_fingerprint: str
    """SHA-256 over the model's configuration and weights."""
    dtype: str
    """Number format that the language model ran in (sums are fp64 always)."""
    device: str
    """Device that the model ran on."""
    corpus: dict[str, Any] | None
    """The text: the corpus settings that yield it again; null when rows of tokens were handed in."""
    token_policy: dict[str, Any] | None
    """How text became rows of tokens and which positions the dictionary leaves out."""
    documents: int
    """Documents that the tokens came from (the unit of the bootstrap)."""
    positions: int
    """All positions of the rows that were read."""
    excluded: int
    """Positions that the token policy excludes: never substituted, never counted."""
    tokens: int
    """Positions that activation metrics (FVU, L0, density, dead, …) are taken over: all that are not excluded."""
    predictions: int
    """Positions that cross-entropy and KL are taken over: those of `tokens` that have a next token in their row."""
    mean_tokens: int
    """The first so many of `tokens`, from which the mean of the mean ablation was estimated."""
    seed: int
    """Seed of the bootstrap."""
    seconds: float
    """Wall-clock time of the whole pass, shared by all dictionaries in it."""
    created: str
    """When, in ISO 8601 (UTC)."""
    saelab_version: str
    """Version of saelab that measured."""
    settings: dict[str, Any]
    """The remaining settings that decide the numbers."""
