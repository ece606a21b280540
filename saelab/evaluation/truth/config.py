"""Settings of the synthetic truth."""

from __future__ import annotations

from pydantic import Field, model_validator

from saelab.config import Config


class TruthConfig(Config):
    """A sparse dictionary that is known, and the activations that it makes."""

    d_in: int = Field(default=64, gt=1)
    """Width of the activations."""
    n_features: int = Field(default=256, gt=1)
    """True features; more than `d_in` makes them interfere."""
    active: float = Field(default=6.0, gt=0)
    """Mean number of features on a token: the sum of all firing frequencies."""
    exponent: float = Field(default=1.2, gt=0)
    """s of the Zipf–Mandelbrot law of firing frequencies, `p_r ∝ (r + q)^-s`."""
    shift: float = Field(default=8.0, ge=0)
    """q of the law."""
    families: int = Field(default=24, ge=0)
    """The so many most frequent features are parents; a child fires only where its parent does."""
    children: int = Field(default=3, gt=0)
    """Children of each parent."""
    exclusive: float = Field(default=0.5, ge=0, le=1)
    """Share of families in which at most one child fires on a token; in the others they fire independently."""
    feature_spread: float = Field(default=0.3, ge=0)
    """Standard deviation of the log of a feature's mean magnitude; the average over features is about 1."""
    firing_spread: float = Field(default=0.3, ge=0)
    """Standard deviation of the log of the magnitude from one firing of a feature to the next."""
    noise: float = Field(default=0.1, ge=0)
    """Root mean square length of the dense noise, where a feature's mean magnitude is about 1."""
    offset: float = Field(default=2.0, ge=0)
    """Length of the constant vector that is added to every token."""
    seed: int = Field(default=0, ge=0)
    """Seed of the directions, the families and the magnitudes."""

    @model_validator(mode="after")
    def _families_fit(self) -> TruthConfig:
        if self.families * (1 + self.children) > self.n_features:
            raise ValueError(
                f"{self.families} families of 1 + {self.children} features are more than n_features = {self.n_features}"
            )
        return self
