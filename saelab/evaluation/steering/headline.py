"""The few numbers of a report that stand in tables, beside their baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from saelab.evaluation.numbers import Interval
from saelab.evaluation.steering.report import Directions, Outcome, Spread, TargetMeans, Way
from saelab.evaluation.steering.spread import interval

_SPREADS = ("kl", "largest", "agreement", "gain", "harm")
_AFTER: Mapping[Directions, str] = {"latents": "", "random": "_random", "mean difference": "_mean_difference"}
_WAYS: Mapping[Way, str] = {"foretells": "", "random": "_random", "mean before it": "_mean_difference"}

Numbers = dict[str, tuple[float | None, Interval]]
_NOTHING = (None, Interval(low=None, high=None))


def headline(
    outcomes: Sequence[Outcome],
    gains: Mapping[Directions, Float[Tensor, "1+resamples"]],
    ways: Sequence[TargetMeans],
) -> Numbers:
    """Name in `SteeringMetrics` → value and interval; undefined where there is no such outcome or way.

    Args:
        gains: at a harm of 0.1, of the text and of each sample.
    """
    numbers: Numbers = {}
    added = [outcome for outcome in outcomes if outcome.method == "direction"]
    for directions, after in _AFTER.items():
        equal = next((o for o in added if (o.matched, o.directions) == ("equal", directions)), None)
        for name in _SPREADS:
            numbers[name + after] = _median(None if equal is None else getattr(equal, name))
        numbers[f"gain_per_harm{after}"] = _pooled(equal)
        gain = gains.get(directions)
        numbers[f"gain_at_harm{after}"] = _NOTHING if gain is None else (float(gain[0]), interval(gain))
    own = next(o for o in added if (o.matched, o.directions) == ("own", "latents"))
    for name in ("kl", "gain", "harm"):
        numbers[f"own_{name}"] = _median(getattr(own, name))
    numbers["own_gain_per_harm"] = _pooled(own)
    by_way = {part.way: part for part in ways}
    for way, after in _WAYS.items():
        for name in ("on", "off", "selectivity"):
            part = by_way.get(way)
            numbers[name + after] = _NOTHING if part is None else (getattr(part, name), part.intervals[name])
    return numbers


def _median(spread: Spread | None) -> tuple[float | None, Interval]:
    return _NOTHING if spread is None else (spread.p50, spread.interval)


def _pooled(outcome: Outcome | None) -> tuple[float | None, Interval]:
    return _NOTHING if outcome is None or outcome.pooled_interval is None else (outcome.pooled, outcome.pooled_interval)
