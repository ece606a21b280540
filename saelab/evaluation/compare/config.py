"""Settings of `saelab compare`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from saelab.config import Config


class CompareConfig(Config):
    """Finished runs, whose reports are read and held against each other."""

    runs: list[Path] = Field(min_length=2)
    """Runs (or dictionary folders) with finished reports."""
    baseline: Path | None = None
    """The run that the others are compared with; left out, the first."""
    resamples: int = Field(10_000, gt=0)
    """Bootstrap samples behind each interval, and permutations behind each p-value."""
    seed: int = Field(0, ge=0)
    """Seed of both."""
    stability: bool = True
    """Whether to ask how far dictionaries at one site have found the same directions."""
