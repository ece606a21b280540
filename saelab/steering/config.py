"""Settings of `saelab steer`, and edits of latents; no torch, so that help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from saelab.config import Config, Count
from saelab.models.positions import Positions

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Mode = Literal["add", "scale", "clamp", "zero"]
Method = Literal["difference", "direction"]


class LatentEdit(Config):
    """What to do to one latent's code f on every token."""

    latent: int = Field(ge=0)
    """Number of the latent."""
    mode: Mode = "add"
    """add: f + strength · unit; clamp: strength · unit, whatever f was; scale: f · strength; zero: 0."""
    strength: float | None = None
    """How much; in add and clamp it counts units: the latent's largest activation where known, else codes."""

    @model_validator(mode="after")
    def _strength_fits_mode(self) -> LatentEdit:
        if self.mode == "zero" and self.strength is not None:
            raise ValueError("mode zero takes no strength; leave it out, or use clamp or scale")
        if self.mode != "zero" and self.strength is None:
            raise ValueError(f"mode {self.mode} needs a strength")
        if self.mode in ("scale", "clamp") and self.strength is not None and self.strength < 0:
            raise ValueError(f"mode {self.mode} needs a strength of 0 or more: codes are never negative")
        return self

    def apply(self, f: Float[Tensor, "tokens"], unit: float) -> Float[Tensor, "tokens"]:
        """The edited codes; never below zero, as no code is: adding a negative strength takes away what is there."""
        strength = self.strength or 0.0
        match self.mode:
            case "add":
                edited = f + strength * unit
            case "clamp":
                edited = f.new_full(f.shape, strength * unit)
            case "scale":
                edited = f * strength
            case "zero":
                edited = f.new_zeros(f.shape)
        return edited.clamp(min=0)


def _as_text(value: object) -> object:
    """A bare 5 in YAML or JSON is a number, and means position 5."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class SteerConfig(Config):
    """Continue a prompt with latents of a dictionary turned up or down, beside the model as it is."""

    run: Path
    """Run (or dictionary folder)."""
    latent: list[int] = Field(min_length=1)
    """Latents that are edited together."""
    strength: list[float] = Field([1.0, 2.0, 4.0], min_length=1)
    """Strengths to compare: each gives its own texts. Without meaning in mode zero."""
    ratio: list[float] | None = None
    """Factor on the strength for each latent, in their order; left out, 1 for all."""
    mode: Mode = "add"
    """add: f + strength · unit; clamp: strength · unit; scale: f · strength; zero: off."""
    method: Method = "difference"
    """difference: edit codes, keep the rest of the activation; direction: add the decoder row everywhere."""
    positions: Annotated[str, BeforeValidator(_as_text)] = "all"
    """Tokens that are edited: all; "5:" from 5 on; "5" that one; "-1:" from the prompt's last on. Token 0 is the
    separator before the document, where the model's text has one."""
    prompt: str = "Once upon a time"
    """Text to continue."""
    max_new_tokens: int = Field(40, gt=0)
    """Tokens to write."""
    samples: int = Field(1, gt=0)
    """Texts for each strength, drawn with seed, seed + 1, and so on."""
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
    def _settings_fit_together(self) -> SteerConfig:
        if self.method == "direction" and self.mode != "add":
            raise ValueError(f"method direction can only add, not {self.mode}; use method difference")
        if self.ratio is not None and self.mode == "zero":
            raise ValueError("mode zero has no strength, so no ratio either; leave ratio out")
        if self.ratio is not None and len(self.ratio) != len(self.latent):
            raise ValueError(f"ratio has {len(self.ratio)} numbers for {len(self.latent)} latents; give one for each")
        Positions.parse(self.positions)
        for strength in self.strengths:
            self.edits(strength)
        return self

    @property
    def strengths(self) -> list[float | None]:
        """One entry for each variant: mode zero has a single one, of no strength."""
        return [None] if self.mode == "zero" else list(self.strength)

    @property
    def seeds(self) -> range:
        """One for each sample."""
        return range(self.seed, self.seed + self.samples)

    def edits(self, strength: float | None) -> list[LatentEdit]:
        """The edits of one variant."""
        if strength is None:
            return [LatentEdit(latent=latent, mode=self.mode) for latent in self.latent]
        shares = zip(self.latent, self.ratio or [1.0] * len(self.latent), strict=True)
        return [LatentEdit(latent=latent, mode=self.mode, strength=strength * ratio) for latent, ratio in shares]
