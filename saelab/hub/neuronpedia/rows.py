"""Rows of Neuronpedia's bulk import, checked as they are made: field names are those of its database.

Source: the classes in neuronpedia-utils' db_models. Numbers are finite; lists that belong together have one length.
"""

# ruff: noqa: N815 (their names, not ours)

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Row(BaseModel):
    """A line of a .jsonl file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Release(Row):
    """What a reader finds under one address: one or many source sets."""

    name: str = Field(pattern=r"^[A-Za-z0-9-]+$")
    description: str
    descriptionShort: str
    creatorName: str
    creatorNameShort: str
    creatorId: str
    urls: list[str]
    visibility: str = "PUBLIC"
    isNewUi: bool = False
    featured: bool = False
    createdAt: str


class Model(Row):
    """The language model."""

    id: str
    instruct: bool
    creatorId: str
    displayNameShort: str
    displayName: str
    tlensId: str | None = None
    layers: int = 0
    neuronsPerLayer: int = 0
    visibility: str = "PUBLIC"
    inferenceEnabled: bool = False
    createdAt: str
    updatedAt: str


class SourceSet(Row):
    """Dictionaries of one kind, a source for each layer."""

    modelId: str
    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    creatorId: str
    creatorName: str
    description: str
    type: str = ""
    releaseName: str
    urls: list[str]
    visibility: str = "PUBLIC"
    hasDashboards: bool = True
    createdAt: str


class Source(Row):
    """One dictionary."""

    id: str
    modelId: str
    setName: str
    creatorId: str
    hasDashboards: bool = True
    inferenceEnabled: bool = False
    visibility: str = "PUBLIC"
    hfRepoId: str | None = None
    hfFolderId: str | None = None
    num_prompts: int = Field(ge=0)
    num_tokens_in_prompt: int = Field(gt=0)
    dataset: str
    notes: str
    createdAt: str


class Feature(Row):
    """One latent. Lists that the feature index has no numbers for are empty."""

    modelId: str
    layer: str
    """Id of the source."""
    index: str
    creatorId: str
    createdAt: str
    maxActApprox: float = Field(ge=0)
    hasVector: bool
    vector: list[float]
    """What one unit of activation adds, in the model's units."""
    vectorLabel: str | None = None
    vectorDefaultSteerStrength: float | None
    hookName: str
    topkCosSimIndices: list[int]
    topkCosSimValues: list[float]
    neuron_alignment_indices: list[int]
    neuron_alignment_values: list[float]
    neuron_alignment_l1: list[float]
    correlated_neurons_indices: list[int] = []
    correlated_neurons_pearson: list[float] = []
    correlated_neurons_l1: list[float] = []
    correlated_features_indices: list[int] = []
    correlated_features_pearson: list[float] = []
    correlated_features_l1: list[float] = []
    neg_str: list[str]
    neg_values: list[float]
    pos_str: list[str]
    pos_values: list[float]
    frac_nonzero: float = Field(ge=0, le=1)
    freq_hist_data_bar_heights: list[float]
    freq_hist_data_bar_values: list[float]
    logits_hist_data_bar_heights: list[float] = []
    logits_hist_data_bar_values: list[float] = []
    decoder_weights_dist: list[float] = []
    sourceSetName: str

    @model_validator(mode="after")
    def _lists_belong_together(self) -> Feature:
        _equal(self, "pos_str", "pos_values")
        _equal(self, "neg_str", "neg_values")
        _equal(self, "topkCosSimIndices", "topkCosSimValues")
        _equal(self, "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1")
        _equal(self, "freq_hist_data_bar_heights", "freq_hist_data_bar_values")
        if self.hasVector != bool(self.vector):
            raise ValueError("hasVector says otherwise than vector")
        return self


class Activation(Row):
    """One example of a latent: tokens and its activation on each."""

    id: str = Field(min_length=25, max_length=25)
    tokens: list[str] = Field(min_length=1)
    index: str
    layer: str
    modelId: str
    maxValue: float
    maxValueTokenIndex: int
    minValue: float
    values: list[float]
    creatorId: str
    createdAt: str
    dataSource: str | None = None
    dataIndex: str | None = None
    dfaValues: list[float] = []
    dfaTargetIndex: int | None = None
    dfaMaxValue: float | None = None
    lossValues: list[float] = []
    logitContributions: str | None = None
    binMin: float | None
    binMax: float | None
    binContains: float | None
    qualifyingTokenIndex: int

    @model_validator(mode="after")
    def _values_belong_to_tokens(self) -> Activation:
        _equal(self, "tokens", "values")
        if self.maxValue != max(self.values) or self.values[self.maxValueTokenIndex] != self.maxValue:
            raise ValueError("maxValue is not the largest of values, at maxValueTokenIndex")
        if not 0 <= self.qualifyingTokenIndex < len(self.tokens):
            raise ValueError("qualifyingTokenIndex is none of the tokens")
        return self


def _equal(row: Any, *names: str) -> None:
    lengths = {name: len(getattr(row, name)) for name in names}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lists of different lengths: {lengths}")
