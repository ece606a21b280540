"""What is reported of dictionaries that are substituted together; formulas in docs/metrics.md."""

from __future__ import annotations

from typing import Any, Literal

from saelab.evaluation.numbers import Intervals, Number, number
from saelab.evaluation.provenance import Provenance, ReportPart
from saelab.evaluation.report import SavedReport


class OutputMetrics(ReportPart):
    """Fidelity at the model's output."""

    ce_clean: Number = number("CE clean", "Next-token cross-entropy of the untouched model.", "nats/token")
    ce_sae: Number = number("CE with SAEs", "Cross-entropy with x replaced by x_hat.", "nats/token")
    ce_zero: Number = number("CE zero-ablated", "Cross-entropy with x replaced by 0.", "nats/token")
    ce_mean: Number = number("CE mean-ablated", "Cross-entropy with x replaced by the mean activation.", "nats/token")
    delta_ce: Number = number("ΔCE", "CE with SAEs minus CE clean: the damage done.", "nats/token")
    loss_recovered_zero: Number = number("Loss recovered (zero)", "(CE_zero - CE_sae) / (CE_zero - CE_clean).", "")
    loss_recovered_mean: Number = number("Loss recovered (mean)", "(CE_mean - CE_sae) / (CE_mean - CE_clean).", "")
    kl: Number = number("KL(clean‖SAE)", "Divergence of next-token distributions, clean from SAE.", "nats/token")


class TogetherMetrics(OutputMetrics):
    """Of all substitutions, or all ablations, in the same pass."""

    delta_ce_sum: Number = number(
        "Sum of ΔCE alone",
        "ΔCE of each dictionary alone, added up; below ΔCE, errors make each other worse.",
        "nats/token",
    )


class AloneMetrics(OutputMetrics):
    """Of one dictionary of the set, by itself."""

    l0: Number = number("L0", "Mean number of latents that fire on a token.", "latents/token")
    l0_together: Number = number(
        "L0 in the set", "The same on the activation that earlier substitutions leave it.", "latents/token"
    )


class Alone(ReportPart):
    """One dictionary of the set, substituted alone."""

    dictionary: str
    """Its name."""
    metrics: AloneMetrics
    intervals: Intervals


class TogetherReport(SavedReport):
    """Dictionaries at different sites of one model, substituted in the same forward pass."""

    suite: Literal["together"] = "together"
    about: tuple[Provenance, ...]
    """The conditions, one entry for each dictionary, in the order in which they were given."""
    metrics: TogetherMetrics
    intervals: Intervals
    """Uncertainty of the numbers of the whole set."""
    alone: tuple[Alone, ...]
    """Each by itself, on the same tokens."""


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the report, with title, description and unit of every number."""
    return TogetherReport.model_json_schema(mode="serialization")
