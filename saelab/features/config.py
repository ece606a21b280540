"""Settings of the feature index."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from saelab.config import Config, Count
from saelab.corpora import CorpusConfig


class IndexConfig(Config):
    """Index what every latent of a dictionary fires on, for browsing."""

    run: Path
    """run directory (or dictionary directory) whose dictionary is indexed"""
    tokens: Count = Field(default=1_000_000, ge=1)
    """tokens to index, counted without the excluded ones"""
    corpus: CorpusConfig | None = None
    """text to index; the text that the run was trained on if not given"""
    out: Path | None = None
    """directory of the index; the run's own features/ if not given"""
    seed: int = Field(default=0, ge=0)
    """draw of the examples that are sampled from each quarter of the activations"""
    model: str | None = None
    """model name or folder; the one that the dictionary names if not given. It must be the same model"""
    device: str = "auto"
    """cpu, cuda, cuda:1, … or auto"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """precision of the language model, the one that the dictionary was trained with"""
    batch: int = Field(default=16, ge=1)
    """rows of text per forward pass"""
    top_examples: int = Field(default=20, ge=1, le=1000)
    """examples with the largest activations kept per latent, each from another document"""
    quarter_examples: int = Field(default=8, ge=0, le=1000)
    """examples sampled per latent from each quarter of (0, largest activation], each from another document"""
    coactivation_pairs: Count = Field(default=20_000_000, ge=0)
    """pairs of active latents counted for co-activation (evenly spaced rows of text are taken); 0 leaves it out"""
    effect_tokens: Count = Field(default=100_000, ge=0)
    """tokens that may be computed again to find what top examples do to the next token's loss; 0 leaves it out"""
    buffer: Count = Field(default=2_000_000, ge=1)
    """activations held in memory at once"""
    overwrite: bool = False
    """replace an index that was made with other settings"""
