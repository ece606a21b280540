"""What colours the tokens of a text: a number for each, its unit, and its largest value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from app.notation import percent, short
from app.prompt.prompts import Prompt
from app.prompt.tokens import REASONS, Cell


class Kind(NamedTuple):
    """A measure's name on the page, and its unit."""

    title: str
    unit: str


MEASURES = {
    "error": Kind("Reconstruction error", "share of |x|² that is missed"),
    "loss": Kind("Next-token loss", "nats, of predicting what comes after the token"),
    "added": Kind("Added loss", "nats, added by the reconstruction"),
    "l0": Kind("Active latents", "latents"),
    "latent": Kind("One latent", "activation"),
}


@dataclass(frozen=True)
class Measure:
    """One of `MEASURES`; of "latent", which one."""

    name: str
    latent: int | None = None

    @property
    def unit(self) -> str:
        return MEASURES[self.name].unit

    def values(self, shown: Prompt) -> list[float]:
        """One number for each position; NaN where there is none."""
        reading = shown.reading
        match self.name:
            case "loss":
                return reading.clean.loss.tolist()
            case "added":
                return (reading.rebuilt.loss - reading.clean.loss).tolist()
            case "l0":
                return reading.codes.counts.double().masked_fill(~reading.kept, math.nan).tolist()
            case "latent":
                return reading.of(self.latent or 0).tolist()
            case _:
                return reading.error.tolist()

    def maximum(self, shown: list[Prompt]) -> float:
        """The largest value in any of the texts, which has the full colour; 0 where there is none above it."""
        known = [value for each in shown for value in self.values(each) if not math.isnan(value)]
        return max(known, default=0.0)


def cells(shown: Prompt, place: int, measure: Measure, query: dict[str, object], name: str) -> list[Cell]:
    """The tokens of a text; a click puts its position into the address as `name`."""
    excluded = shown.reading.excluded.tolist()
    return [
        Cell(
            word, value, _tip(shown, position, measure, value), {**query, name: position}, position == place,
            excluded[position] != 0,
        )
        for position, (word, value) in enumerate(zip(shown.words, measure.values(shown), strict=True))
    ]  # fmt: skip


def _tip(shown: Prompt, position: int, measure: Measure, value: float) -> str:
    """What the pointer shows of a token."""
    reading = shown.reading
    parts = [f"position {position}"]
    if measure.name == "latent":
        parts.append(f"latent {measure.latent}: {short(value)}")
    if reason := int(reading.excluded[position]):
        parts.append(f"left out, as are {REASONS[reason]}")
    else:
        parts += [f"error {percent(float(reading.error[position]))}", f"{int(reading.codes.counts[position])} latents"]
    if not math.isnan(loss := float(reading.clean.loss[position])):
        parts.append(
            f"next-token loss {loss:.2f}, with reconstruction {float(reading.rebuilt.loss[position]):.2f} nats"
        )
    return "".join(f" · {part}" for part in parts)
