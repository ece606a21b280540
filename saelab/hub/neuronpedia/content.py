"""What the feature index knows of a latent, as Neuronpedia's rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from saelab.features.index import FeatureIndex
from saelab.features.records import Example, LatentStatistics
from saelab.features.schema import QUARTERS
from saelab.hub.neuronpedia.rows import Activation, Feature

ALIGNED = 3
"""Coordinates of the decoder row that are listed."""


@dataclass(frozen=True)
class Place:
    """What every row says of itself."""

    model: str
    source_set: str
    source: str
    hook: str
    creator: str
    created: str


def feature(index: FeatureIndex, place: Place, latent: int, vector: Float32[np.ndarray, "d"]) -> Feature:
    """Statistics, promoted and suppressed tokens, nearest latents and the decoder row of a latent.

    Args:
        vector: what one unit of its activation adds to the model, in the model's units.
    """
    known, logits, near = index.latent(latent), index.logits(latent), index.neighbours(latent)
    largest = np.argsort(-np.abs(vector), kind="stable")[:ALIGNED]
    length = float(np.abs(vector).sum()) or 1.0
    edges = known.bin_edges
    return Feature(
        modelId=place.model, layer=place.source, index=str(latent), creatorId=place.creator, createdAt=place.created,
        maxActApprox=known.max_activation or 0.0, hasVector=True, vector=_numbers(vector),
        vectorDefaultSteerStrength=known.max_activation, hookName=place.hook,
        topkCosSimIndices=[one.latent for one in near], topkCosSimValues=_numbers([one.cosine for one in near]),
        neuron_alignment_indices=largest.tolist(), neuron_alignment_values=_numbers(vector[largest]),
        neuron_alignment_l1=_numbers(np.abs(vector[largest]) / length),
        neg_str=[index.vocabulary[one.id] for one in logits.suppressed],
        neg_values=_numbers([one.weight for one in logits.suppressed]),
        pos_str=[index.vocabulary[one.id] for one in logits.promoted],
        pos_values=_numbers([one.weight for one in logits.promoted]),
        frac_nonzero=known.density, freq_hist_data_bar_heights=known.histogram.tolist(),
        freq_hist_data_bar_values=_numbers((edges[:-1] + edges[1:]) / 2), sourceSetName=place.source_set,
    )  # fmt: skip


def activations(index: FeatureIndex, place: Place, latent: int) -> list[Activation]:
    """The examples of a latent: the largest first, then those of each quarter of (0, largest], the highest first."""
    known, examples = index.latent(latent), index.examples(latent)
    order = sorted(examples, key=lambda one: (one.quantile != 0, -one.quantile, one.rank))
    return [_activation(index, place, known, one) for one in order]


def _activation(index: FeatureIndex, place: Place, known: LatentStatistics, example: Example) -> Activation:
    low, high, share = _bin(known, example.quantile)
    values = _numbers(example.values)
    largest = int(np.argmax(values))
    return Activation(
        id=_id(place.source, known.latent, example), tokens=[index.vocabulary[id] for id in example.tokens],
        index=str(known.latent), layer=place.source, modelId=place.model, maxValue=values[largest],
        maxValueTokenIndex=largest, minValue=min(values), values=values, creatorId=place.creator,
        createdAt=place.created, binMin=low, binMax=high, binContains=share, qualifyingTokenIndex=example.focus,
    )  # fmt: skip


def _bin(known: LatentStatistics, quantile: int) -> tuple[float | None, float | None, float | None]:
    """Bounds of a quarter of (0, max], and the share of active tokens in it; nothing for the largest activations."""
    if quantile == 0 or not known.max_activation:
        return None, None, None
    bins = len(known.histogram) // QUARTERS
    inside = int(known.histogram[(quantile - 1) * bins : quantile * bins].sum())
    step = known.max_activation / QUARTERS
    low, high = _numbers([(quantile - 1) * step, quantile * step])
    return low, high, inside / known.n_active


def _id(source: str, latent: int, example: Example) -> str:
    """25 letters and digits that begin with a letter, as the database wants; the same at every export."""
    name = f"{source}/{latent}/{example.quantile}/{example.rank}/{example.token}"
    return "c" + hashlib.sha256(name.encode()).hexdigest()[:24]


def _numbers(values: Float32[np.ndarray, "n"] | list[float]) -> list[float]:
    """Six digits: more would only make files longer."""
    return [float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64)]
