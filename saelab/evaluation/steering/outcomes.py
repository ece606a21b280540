"""The tables of the suite: what one kind of directions does at one strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.steering.directions import Arm
from saelab.evaluation.steering.reactions import Reactions
from saelab.evaluation.steering.report import Directions, Outcome, Spread
from saelab.evaluation.steering.spread import FLOOR, Weighing, agreement, at_harm, interval, per_harm, pooled, spread


def judged(arm: Arm, method: Literal["direction", "difference"], found: Reactions, weighing: Weighing) -> Outcome:
    """Numbers over the arm's vectors from what they did at every place."""
    gain, harm = weighing.mean(found.gain), weighing.mean(found.harm)
    has_gain = not gain[0].isnan().any()
    ratio = pooled(gain, harm)
    return Outcome(
        directions=arm.directions,
        method=method,
        matched=arm.matched,
        strength=arm.strength,
        vectors=len(arm.vectors),
        norm=_spread(weighing.mean(found.norm)),
        kl=_spread(weighing.mean(found.kl)),
        largest=_spread(weighing.mean(found.largest)),
        agreement=_spread(agreement(found.promoted)),
        gain=spread(gain),
        harm=_spread(harm),
        gain_per_harm=spread(per_harm(gain, harm)) if has_gain else None,
        harmless=float((harm[0] <= FLOOR).double().mean()),
        pooled=float(ratio[0]) if has_gain else None,
        pooled_interval=interval(ratio) if has_gain else None,
    )


def gains_at_harm(arms: Sequence[tuple[Arm, Reactions]], weighing: Weighing) -> dict[Directions, Tensor]:
    """By kind of directions the mean gain at equal lengths where the mean harm is 0.1, of the text and each sample."""
    equal = sorted((pair for pair in arms if pair[0].matched == "equal"), key=lambda pair: pair[0].strength)
    kinds: list[Directions] = [arm.directions for arm, _ in equal]
    found: dict[Directions, Tensor] = {}
    for kind in dict.fromkeys(kinds):
        of_kind = [reactions for arm, reactions in equal if arm.directions == kind]
        gain, harm = (
            torch.stack([weighing.mean(getattr(reactions, name)).mean(1) for reactions in of_kind])
            for name in ("gain", "harm")
        )
        found[kind] = at_harm(gain, harm)
    return found


def _spread(values: Float[Tensor, "1+resamples vectors"]) -> Spread:
    """Of a number that every vector has."""
    found = spread(values)
    assert found is not None
    return found
