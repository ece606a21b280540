"""What a feature index answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64


@dataclass(frozen=True)
class LatentStatistics:
    """One latent over all kept tokens. Activations are in the dictionary's own (scaled) units."""

    latent: int
    n_active: int
    density: float
    mean_activation: float | None  # over active tokens; None for a latent that was never active
    max_activation: float | None
    histogram: Int64[np.ndarray, "bins"]  # counts in equal bins of (0, max], each closed above
    top_tokens: list[int]  # token ids with the largest share of the summed activation
    top_token_share: list[float]

    @property
    def bin_edges(self) -> Float32[np.ndarray, "bins+1"]:
        return np.linspace(0, self.max_activation or 0.0, len(self.histogram) + 1, dtype=np.float32)


@dataclass(frozen=True)
class Example:
    """A token on which a latent is active, and the text around it."""

    quantile: int  # 0: one of the largest; 1 … 4: drawn from that quarter of (0, max], 4 the highest
    rank: int
    token: int  # number of the token in the indexed text
    document: int
    value: float
    tokens: Int32[np.ndarray, "window"]  # token ids
    values: Float32[np.ndarray, "window"]  # this latent's activation on each of them
    focus: int  # index of the token itself
    effect: float | None = None  # nats: next-token loss without this latent's contribution, minus the clean loss


@dataclass(frozen=True)
class Window:
    """A stretch of the indexed text inside one row."""

    first: int  # number of its first token
    tokens: Int32[np.ndarray, "window"]
    documents: Int32[np.ndarray, "window"]
    kept: Bool[np.ndarray, "window"]
    loss: Float32[np.ndarray, "window"]  # nats, of predicting the next token from here; NaN at the end of a row
    values: Float32[np.ndarray, "window"] | None  # a latent's activation, if one was asked for
    focus: int


@dataclass(frozen=True)
class Activations:
    """Tokens on which a latent is active."""

    token: Int64[np.ndarray, "n"]
    value: Float32[np.ndarray, "n"]


class Meaning(NamedTuple):
    """A latent of a supervised dictionary: the attribute, and the value that it stands for."""

    group: str
    value: str


class TokenWeight(NamedTuple):
    id: int
    weight: float


class Logits(NamedTuple):
    """Tokens that a latent promotes and suppresses most; the weight is the logit change per unit of activation."""

    promoted: list[TokenWeight]
    suppressed: list[TokenWeight]


class LatentWeight(NamedTuple):
    latent: int
    weight: float


class Neighbour(NamedTuple):
    latent: int
    cosine: float


class CoActive(NamedTuple):
    latent: int
    n_both: int  # tokens on which both are active, among `summary["coactivation_tokens"]`
    share: float  # of this latent's active tokens
    cosine: float  # of the two on/off vectors


class LabelScore(NamedTuple):
    label: str
    f1: float
    precision: float
    recall: float
    threshold: float


class TokenMass(NamedTuple):
    latent: int
    mass: float  # summed activation on the token id
    share: float  # of the latent's whole summed activation


class LabelledLatent(NamedTuple):
    latent: int
    f1: float
