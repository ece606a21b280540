"""Settings of `saelab steer`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from saelab.config import Config, Count
from saelab.steering.edits import LatentEdit, Mode
from saelab.steering.steered import Method


class SteerConfig(Config):
    """Continue a prompt with latents of a dictionary turned up or down, beside the model as it is."""

    run: Path
    """Run (or dictionary folder)."""
    latent: list[int] = Field(min_length=1)
    """Latents that are edited together."""
    strength: list[float] = Field([1.0, 2.0, 4.0], min_length=1)
    """Strengths to compare: each gives one text. Without meaning in mode zero."""
    mode: Mode = "add"
    """add: f + strength · unit; clamp: strength · unit; scale: f · strength; zero: off."""
    method: Method = "difference"
    """difference: edit codes, keep the rest of the activation; direction: add the decoder row everywhere."""
    prompt: str = "Once upon a time"
    """Text to continue."""
    max_new_tokens: int = Field(40, gt=0)
    """Tokens to write."""
    temperature: float = Field(0.8, ge=0)
    """0 takes the likeliest token every time."""
    top_k: int | None = Field(None, gt=0)
    """Draw from the so many likeliest tokens only."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw from the fewest likeliest tokens that together have this probability."""
    seed: int = 0
    """Seed of the draw, the same for every strength."""
    unit_tokens: Count = Field(20_000, gt=0)
    """Without a feature index the largest activations, which strengths count, are measured on so many tokens."""
    model: str | None = None
    """Model name or folder; left out, the one that the dictionary names."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    @model_validator(mode="after")
    def _method_has_mode(self) -> SteerConfig:
        if self.method == "direction" and self.mode != "add":
            raise ValueError(f"method direction can only add, not {self.mode}; use method difference")
        for strength in self.strengths:
            self.edits(strength)
        return self

    @property
    def strengths(self) -> list[float | None]:
        """One entry for each text: mode zero has a single one, of no strength."""
        return [None] if self.mode == "zero" else list(self.strength)

    def edits(self, strength: float | None) -> list[LatentEdit]:
        """The edits of one text."""
        return [LatentEdit(latent=latent, mode=self.mode, strength=strength) for latent in self.latent]
