"""Settings of `saelab evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from saelab.config import Config, Count
from saelab.corpora.config import CorpusConfig
from saelab.evaluation.steering.config import SteeringConfig

Suite = Literal["fidelity", "sparsity", "labels", "steering"]
"""What can be measured; a new suite is one class with the methods of `suites.Reader`."""


class EvaluateConfig(Config):
    """Any number of dictionaries, each suite, on one pass over model and held-out text."""

    runs: list[Path] = Field(min_length=1)
    """Runs (or dictionary folders) to evaluate."""
    suites: list[Suite] = Field(["fidelity", "sparsity"], min_length=1)
    """fidelity: what the reconstruction loses; sparsity: who fires how often; labels: how well latents tell what is
    known of each token (text with labels: microworld, ioi); steering: what latents do when they are turned up."""
    tokens: Count = Field(100_000, gt=0)
    """Positions of held-out text to read, rounded up to whole rows."""
    model: str | None = None
    """Model name or folder; left out, the one that the dictionary names. It must be the same model."""
    corpus: CorpusConfig | None = None
    """Text, of which the test split is read; left out, the run's own corpus."""
    mean_tokens: Count = Field(10_000, gt=0)
    """The first tokens that count, up to about this many, give the mean of the mean ablation."""
    batch_rows: int = Field(8, gt=0)
    """Rows that go through the model at a time; less needs less memory. Numbers stay the same, but for leaking ones."""
    resamples: int = Field(1000, gt=0)
    """Bootstrap samples behind each interval."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap, and of what the steering suite draws."""
    steering: SteeringConfig = SteeringConfig()
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the language model; left out, that of training. Dictionaries run in float32, sums in float64."""
    together: bool = False
    """Substitute all runs, at different sites of one model, in the same forward pass: one report on the whole set, in
    the folder of the first, in place of the suites."""
    overwrite: bool = False
    """Replace reports that were made with other settings."""

    @model_validator(mode="after")
    def _a_set(self) -> EvaluateConfig:
        if self.together and len(self.runs) < 2:
            raise ValueError("together: give at least two runs")
        return self


class CalibrateConfig(Config):
    """How many latents a finished dictionary keeps per token, and thresholds that keep what it was trained for."""

    run: Path
    """Run whose dictionary's thresholds are estimated anew."""
    activations: Path | None = None
    """Directory of harvested activations to estimate on; left out, the model reads the run's own training text."""
    tokens: Count = Field(200_000, gt=0)
    """Tokens to estimate on; a quarter as many others are kept apart to count on. All are held in memory."""
    method: Literal["factor", "latent"] = "factor"
    """factor: one factor for all thresholds; latent: each by itself, to its budget (feature choice only)."""
    model: str | None = None
    """Model name or folder; left out, the one that the dictionary names."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    seed: int = Field(0, ge=0)
    """Draw of the tokens."""
