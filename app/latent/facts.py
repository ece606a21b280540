"""The line of numbers under a latent's title."""

from __future__ import annotations

from collections.abc import Sequence

from app import blocks
from app.notation import percent, short, signed
from saelab.features.index import Example, FeatureIndex, LatentStatistics


def facts(index: FeatureIndex, statistics: LatentStatistics, examples: Sequence[Example]) -> str:
    """How often and how strongly it fires, what it does to the loss where it is strongest, and its best label."""
    known = [
        ("fires on", f"{percent(statistics.density)} of tokens"),
        ("that is", f"{statistics.n_active:,} of {index.n_tokens:,}"),
        ("largest activation", short(statistics.max_activation)),
        ("mean when active", short(statistics.mean_activation)),
    ]
    effects = [example.effect for example in examples if example.effect is not None]
    if effects:
        mean = sum(effects) / len(effects)
        known.append(("loss without it", f"{signed(mean, 3)} nats, mean of {len(effects)} top examples"))
    best = index.labels(statistics.latent)[:1]
    return blocks.facts(known + [("best label", f"{label.label} (F1 {label.f1:.2f})") for label in best])
