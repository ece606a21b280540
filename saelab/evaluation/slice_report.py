"""What a report says of some of the predictions: those at a position, those of tokens with a label."""

from __future__ import annotations

from saelab.evaluation.numbers import Interval, Number, number
from saelab.evaluation.provenance import ReportPart


class Slice(ReportPart):
    """Fidelity at the model's output, of some of the predictions."""

    predictions: int = number("Predictions", "Scored positions in this slice.", "tokens")
    ce_clean: Number = number("CE clean", "Next-token cross-entropy of the untouched model.", "nats/token")
    ce_sae: Number = number("CE with the SAE", "Cross-entropy with x replaced by x_hat.", "nats/token")
    delta_ce: Number = number("ΔCE", "CE with the SAE minus CE clean.", "nats/token")
    kl: Number = number("KL(clean‖SAE)", "Divergence of next-token distributions, clean from SAE.", "nats/token")
    intervals: dict[str, Interval]
    """Of ΔCE and KL, over documents."""


class PositionSlice(Slice):
    """Predictions that are made at some positions of the row."""

    first: int = number("First position", "Positions of a row count from 0; the prediction is about the next.", "")
    last: int = number("Last position", "Itself included.", "")
    positions: int = number("Positions", "All positions of all rows that were read there.", "tokens")
    excluded: int = number("Excluded positions", "Those of them that the token policy leaves out.", "tokens")


class LabelSlice(Slice):
    """Predictions of tokens that carry a label; a token may carry several, so slices overlap."""

    label: str
    """Name of the label."""
