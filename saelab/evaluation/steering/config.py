"""Settings of the steering suite."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from saelab.config import Config

Multiple = Annotated[float, Field(gt=0)]


class SteeringConfig(Config):
    """Which latents are turned up, how far, and where."""

    latents: int | None = Field(default=128, gt=0)
    """Latents to steer, drawn by seed from those that fire on the text; null steers all of these."""
    contexts: int = Field(default=32, gt=1)
    """Random contexts that each is steered in."""
    longest: int = Field(default=64, gt=1)
    """Most tokens of a context."""
    following: int = Field(default=4, gt=0)
    """Predictions that count as harmed: that of the next token, and those after it."""
    strengths: list[Multiple] = Field(default=[1.0, 2.0, 4.0], min_length=1)
    """Matched strength: so many times the latent's own largest activation. The first stands in tables."""
    lengths: list[Multiple] = Field(default=[1.0, 0.5, 2.0], min_length=1)
    """Equal length: so many times the typical distance of an activation from the mean one. The first stands in tables,
    and is that of steering towards labels."""
    labels: list[str] | None = None
    """Labels to steer towards; left out, all that a token tells by itself (text with labels only)."""
