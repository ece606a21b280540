"""What the steering suite reports; formulas in docs/metrics.md."""

from __future__ import annotations

from typing import Any, Literal

from saelab.evaluation.numbers import Interval, Intervals, Number, number
from saelab.evaluation.provenance import ReportPart
from saelab.evaluation.report import Report

Directions = Literal["latents", "random", "mean difference"]
Matched = Literal["own", "equal"]
Way = Literal["detects", "foretells", "mean on it", "mean before it", "random"]

_UNIT = "of the field"
_PER_HARM = "probability per nat/token"


class Spread(ReportPart):
    """A number that every direction has, averaged over contexts: how it is spread over the directions."""

    p10: Number = number("10 %", "A tenth of the directions lie below.", _UNIT)
    p25: Number = number("25 %", "A quarter of the directions lie below.", _UNIT)
    p50: Number = number("Median", "Half of the directions lie below.", _UNIT)
    p75: Number = number("75 %", "Three quarters of the directions lie below.", _UNIT)
    p90: Number = number("90 %", "Nine tenths of the directions lie below.", _UNIT)
    mean: Number = number("Mean", "Over directions.", _UNIT)
    interval: Interval
    """Of the median: 95 % bootstrap over the documents of the contexts, directions held."""


class Outcome(ReportPart):
    """What one kind of directions does at one strength."""

    directions: Directions
    """The dictionary's latents, or a baseline."""
    method: Literal["direction", "difference"]
    """direction: strength · unit · d is added; difference: the code is clamped to strength · unit."""
    matched: Matched
    """own: every direction in its own unit; equal: all have one length."""
    strength: Number = number("Strength", "Times the own unit, or times the typical distance from the mean.", "")
    vectors: int = number("Directions", "Directions that the spreads are over.", "directions")
    norm: Spread = number("Length", "Length of what is added, averaged over contexts.", "model units")
    kl: Spread = number("KL", "KL(clean ‖ steered) of the next token.", "nats")
    largest: Spread = number("Largest |Δlogit|", "Over the vocabulary.", "logits")
    agreement: Spread = number(
        "Agreement", "Share of contexts in which the commonest of the promoted tokens is the promoted one.", ""
    )
    gain: Spread | None = number(
        "Gain", "Change of the probability that the next token is one of those it promotes directly.", "probability"
    )
    harm: Spread = number(
        "Harm", "Increase of the cross-entropy of the text's own next tokens, over `following` of them.", "nats/token"
    )
    gain_per_harm: Spread | None = number(
        "Gain per harm", "Of directions with a harm above 0.01 nats/token.", _PER_HARM
    )
    harmless: Number = number("Harmless", "Share of directions with no such harm, which have no gain per harm.", "")
    pooled: Number = number("Gain per harm, pooled", "Sum of gains over sum of harms of all directions.", _PER_HARM)
    pooled_interval: Interval | None
    """Of `pooled`."""


class Moved(ReportPart):
    """Another label that moves when one is steered towards."""

    label: str
    """Its name."""
    change: Number = number(
        "Change", "Mean change of its probability among next tokens without the label aimed at.", "probability"
    )


class Steered(ReportPart):
    """A label steered towards in one way."""

    way: Way
    """The latent that detects it or foretells it best; the mean difference of its tokens, or of those before them; a
    random direction."""
    latent: int | None
    """Number of the latent; null for what is none."""
    f1: Number = number("F1", "Of the latent, where it was chosen; null for what is none.", "")
    on: Number = number("On target", "Change of the probability that the next token has the label.", "probability")
    off: Number = number(
        "Off target", "Mean |change| of the other labels, among next tokens without the one aimed at.", "probability"
    )
    harm: Number = number("Harm", "Increase of the cross-entropy of the text's own next tokens.", "nats/token")
    on_interval: Interval
    """Of `on`."""
    moved: list[Moved]
    """The three other labels that move most."""


class Target(ReportPart):
    """One label."""

    label: str
    """Its name."""
    told: Number = number(
        "Told by the token", "Share of the label's variance that the token's identity explains, on other documents.", ""
    )
    clean: Number = number(
        "Before", "Probability that the next token has the label, unsteered, mean over contexts.", "probability"
    )
    ways: list[Steered]
    """Each way of steering towards it."""


class TargetMeans(ReportPart):
    """One way of steering, over all labels."""

    way: Way
    """As in `Steered`."""
    on: Number = number("On target", "Mean over labels.", "probability")
    off: Number = number("Off target", "Mean over labels.", "probability")
    selectivity: Number = number("Selectivity", "Sum of on-target over sum of off-target changes.", "")
    harm: Number = number("Harm", "Mean over labels.", "nats/token")
    on_per_harm: Number = number("On target per harm", "Sum of on-target changes over sum of harms.", _PER_HARM)
    intervals: dict[str, Interval]
    """Of the numbers above, by name."""


def _random(title: str, unit: str) -> Any:
    return number(f"{title}, random", "The same of random directions of that length.", unit)


def _mean(title: str, unit: str) -> Any:
    return number(f"{title}, mean difference", "The same of differences of means; null without labels.", unit)


class SteeringMetrics(ReportPart):
    """Latents beside both baselines, all at equal length; then at own strength; then steering towards labels."""

    sampled: int = number("Latents steered", "Drawn at random from the live ones.", "latents")
    live: int = number("Live latents", "Latents that fired on the tokens of this report.", "latents")
    contexts: int = number("Contexts", "Places in the text that each direction was added at.", "contexts")
    length: Number = number("Equal length", "That of every direction below.", "model units")
    kl: Number = number("KL", "KL(clean ‖ steered) of the next token; median over latents.", "nats")
    kl_random: Number = _random("KL", "nats")
    kl_mean_difference: Number = _mean("KL", "nats")
    largest: Number = number("Largest |Δlogit|", "Over the vocabulary; median over latents.", "logits")
    largest_random: Number = _random("Largest |Δlogit|", "logits")
    largest_mean_difference: Number = _mean("Largest |Δlogit|", "logits")
    agreement: Number = number(
        "Agreement", "Share of contexts with the commonest promoted token; median over latents.", ""
    )
    agreement_random: Number = _random("Agreement", "")
    agreement_mean_difference: Number = _mean("Agreement", "")
    gain: Number = number(
        "Gain", "Change of the probability of the tokens that a latent promotes directly; median.", "probability"
    )
    gain_random: Number = _random("Gain", "probability")
    gain_mean_difference: Number = _mean("Gain", "probability")
    harm: Number = number("Harm", "Increase of the text's own cross-entropy; median over latents.", "nats/token")
    harm_random: Number = _random("Harm", "nats/token")
    harm_mean_difference: Number = _mean("Harm", "nats/token")
    gain_per_harm: Number = number("Gain per harm", "Sum of gains over sum of harms of all latents.", _PER_HARM)
    gain_per_harm_random: Number = _random("Gain per harm", _PER_HARM)
    gain_per_harm_mean_difference: Number = _mean("Gain per harm", _PER_HARM)
    gain_at_harm: Number = number(
        "Gain at a harm of 0.1", "Mean gain at the length at which the mean harm is 0.1 nats/token.", "probability"
    )
    gain_at_harm_random: Number = _random("Gain at a harm of 0.1", "probability")
    gain_at_harm_mean_difference: Number = _mean("Gain at a harm of 0.1", "probability")
    own_kl: Number = number("KL at own strength", "At the first of the matched strengths; median.", "nats")
    own_gain: Number = number("Gain at own strength", "At the first of the matched strengths; median.", "probability")
    own_harm: Number = number("Harm at own strength", "At the first of the matched strengths; median.", "nats/token")
    own_gain_per_harm: Number = number(
        "Gain per harm at own strength", "At the first of the matched strengths; pooled over latents.", _PER_HARM
    )
    labels: int | None = number("Labels steered towards", "Null without labels.", "labels")
    on: Number = number(
        "On target", "Change of the probability of a label by the latent that foretells it; mean.", "probability"
    )
    on_random: Number = _random("On target", "probability")
    on_mean_difference: Number = _mean("On target", "probability")
    off: Number = number("Off target", "Mean |change| of the other labels, given not this one; mean.", "probability")
    off_random: Number = _random("Off target", "probability")
    off_mean_difference: Number = _mean("Off target", "probability")
    selectivity: Number = number("Selectivity", "Sum of on-target over sum of off-target changes.", "")
    selectivity_random: Number = _random("Selectivity", "")
    selectivity_mean_difference: Number = _mean("Selectivity", "")


class SteeringReport(Report):
    """How far and how well latents steer the model."""

    suite: Literal["steering"] = "steering"
    metrics: SteeringMetrics
    intervals: Intervals
    """Uncertainty over the documents of the contexts, with directions held."""
    outcomes: list[Outcome]
    """Every kind of directions at every strength, by both methods."""
    target_means: list[TargetMeans] | None
    """Steering towards labels, by the way; null where no label of the text can be judged."""
    targets: list[Target] | None
    """The same for each label."""
