"""What a report holds: every number with a title, a description and a unit.

The classes here, and those of other suites beside them, are the published schema (`reports.json_schema`). A number that
is undefined is null, never NaN and never -1. docs/metrics.md gives the formula behind each name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from saelab.disk import read_json, write_json
from saelab.errors import UserError
from saelab.evaluation.numbers import Interval as Interval
from saelab.evaluation.numbers import Intervals as Intervals
from saelab.evaluation.numbers import Number as Number
from saelab.evaluation.numbers import number as number
from saelab.evaluation.provenance import Provenance, ReportPart
from saelab.evaluation.slice_report import LabelSlice, PositionSlice

SCHEMA_VERSION = 1


def _l0_over_k() -> Any:
    return number(
        "L0 over budget",
        "l0 / k, the budget of training; beyond 5 % either way thresholds want calibrating. Null without a budget.",
        "",
        default=None,
    )


class FidelityMetrics(ReportPart):
    """How faithful the reconstruction is, to the activation and to the model's output."""

    ce_clean: Number = number("CE clean", "Next-token cross-entropy of the untouched model.", "nats/token")
    ce_sae: Number = number("CE with the SAE", "Cross-entropy with x replaced by x_hat.", "nats/token")
    ce_zero: Number = number("CE zero-ablated", "Cross-entropy with x replaced by 0.", "nats/token")
    ce_mean: Number = number("CE mean-ablated", "Cross-entropy with x replaced by the mean activation.", "nats/token")
    delta_ce: Number = number("ΔCE", "CE with the SAE minus CE clean: the damage done.", "nats/token")
    loss_recovered_zero: Number = number(
        "Loss recovered (zero)", "(CE_zero - CE_sae) / (CE_zero - CE_clean); 1 is perfect, 0 no better than it.", ""
    )
    loss_recovered_mean: Number = number(
        "Loss recovered (mean)", "(CE_mean - CE_sae) / (CE_mean - CE_clean); 1 is perfect, 0 no better than it.", ""
    )
    kl: Number = number("KL(clean‖SAE)", "Divergence of next-token distributions, clean from SAE.", "nats/token")
    splice_error: Number = number(
        "Splice error",
        "Largest change of a token's loss with x replaced by x_hat + (x - x_hat), first batch: rounding only.",
        "nats",
    )
    fvu: Number = number("FVU", "Fraction of variance unexplained, sum|x-x_hat|² / sum|x-mean|².", "")
    explained_variance: Number = number("Explained variance", "1 - FVU; predicting the mean gives 0.", "")
    bias: Number = number("Relative bias", "E|x_hat|² / E[x·x_hat]; below 1 is shrinkage.", "")
    cosine: Number = number("Cosine similarity", "Mean cosine between x and x_hat (0 where either is 0).", "")
    l0: Number = number("L0", "Mean number of latents that fire on a token.", "latents/token")
    l0_over_k: Number = _l0_over_k()
    density: Number = number("Mean density", "Share of tokens on which a latent fires, averaged over latents.", "")
    dead: int = number("Dead latents", "Latents that never fired on the tokens of this report.", "latents")
    dead_fraction: Number = number("Dead fraction", "Dead latents as a share of all.", "")


LEAKS = (
    "Latents were chosen by an affinity that sees the gradient of the loss, and with it the token to be predicted: "
    "these numbers leak the label. They show what selection in training sees, not what the dictionary does in use."
)


class LeakingMetrics(ReportPart):
    """The numbers of gradient-aware selection, defined as those of the same name in use."""

    ce_sae: Number = number("CE with the SAE", "Cross-entropy with x replaced by x_hat; leaks.", "nats/token")
    delta_ce: Number = number("ΔCE", "CE with the SAE minus CE clean; leaks, and may be negative.", "nats/token")
    loss_recovered_zero: Number = number(
        "Loss recovered (zero)", "(CE_zero - CE_sae) / (CE_zero - CE_clean); leaks.", ""
    )
    loss_recovered_mean: Number = number(
        "Loss recovered (mean)", "(CE_mean - CE_sae) / (CE_mean - CE_clean); leaks.", ""
    )
    kl: Number = number("KL(clean‖SAE)", "Divergence of next-token distributions, clean from SAE.", "nats/token")
    fvu: Number = number("FVU", "Fraction of variance unexplained, sum|x-x_hat|² / sum|x-mean|².", "")
    l0: Number = number("L0", "Mean number of latents that fire on a token.", "latents/token")


class Leaking(ReportPart):
    """Gradient-aware selection, as in training: reported beside the headline, never in its place."""

    warning: str = LEAKS
    """What is wrong with these numbers."""
    tokens_together: int
    """Most tokens that were selected together: |g| is normalised, and a batch's budget spent, over such a batch."""
    metrics: LeakingMetrics
    intervals: Intervals
    """Uncertainty of the numbers that are ratios of sums over documents."""


class Pair(ReportPart):
    """Two latents whose decoder directions nearly coincide."""

    latent: int
    other: int
    cosine: float


class ZipfLaw(ReportPart):
    """log density = intercept - s · log(rank + q), fitted to live latents with weight 1/rank."""

    s: Number = number("Zipf exponent", "How steeply density falls with rank.", "")
    q: Number = number("Zipf offset", "How flat the head of the curve is.", "ranks")
    intercept: Number = number("Zipf intercept", "Log density at rank + q = 1.", "nats")
    s_error: Number = number("Standard error of s", "From the scatter around the fitted line.", "")
    q_error: Number = number("Standard error of q", "From the scatter around the fitted line.", "ranks")
    intercept_error: Number = number("Standard error of the intercept", "From the scatter around the line.", "nats")
    r_squared: Number = number("R²", "Weighted share of the variance of log density that the law explains.", "")
    n_latents: int = number("Latents fitted", "Live latents that the fit rests on.", "latents")


class SparsityMetrics(ReportPart):
    """How the firing is shared out among tokens and latents, and how much latents repeat each other."""

    l0: Number = number("L0", "Mean number of latents that fire on a token.", "latents/token")
    l0_over_k: Number = _l0_over_k()
    l0_p5: int | None = number("L0, 5th percentile", "95 % of tokens have at least about this many.", "latents/token")
    l0_p50: int | None = number("L0, median", "The median token's number of firing latents.", "latents/token")
    l0_p95: int | None = number("L0, 95th percentile", "95 % of tokens have no more than this.", "latents/token")
    l0_histogram: list[int] = number("L0 histogram", "Entry n: tokens on which exactly n latents fire.", "tokens")
    density_edges: list[float] = number(
        "Density bin edges", "Edges of the density histogram, log10 of density.", "log10"
    )
    density_histogram: list[int] = number("Density histogram", "Live latents in each density bin.", "latents")
    dead: int = number("Dead latents", "Latents that never fired on the tokens of this report.", "latents")
    dead_fraction: Number = number("Dead fraction", "Dead latents as a share of all.", "")
    underused: int | None = number(
        "Underused latents", "Live latents with less than half of the density that the Zipf law expects.", "latents"
    )
    underused_fraction: Number = number("Underused fraction", "Underused latents as a share of all.", "")
    redundant_fraction: Number = number(
        "Redundant fraction", "Latents whose decoder direction has a cosine above 0.9 with another's.", ""
    )
    nearest_cosine: Number = number(
        "Mean nearest cosine", "Cosine of each decoder direction with the nearest other one, averaged over latents.", ""
    )
    closest_pairs: list[Pair] = number("Closest pairs", "The pairs with the highest decoder cosine.", "")
    zipf: ZipfLaw | None = number("Zipf law", "Rank–density law; null with fewer than four live latents.", "")


class SavedReport(ReportPart):
    """A report that lies in a file."""

    schema_version: int = SCHEMA_VERSION
    """Version of this schema."""

    def save(self, path: Path) -> None:
        """Write the report as strict JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))


class Report(SavedReport):
    """One suite's findings on one dictionary."""

    about: Provenance
    """The conditions that the numbers hold under."""


class FidelityReport(Report):
    """Reconstruction and substitution metrics on held-out text."""

    suite: Literal["fidelity"] = "fidelity"
    metrics: FidelityMetrics
    intervals: Intervals
    """Uncertainty of the numbers that are ratios of sums over documents."""
    leaking: Leaking | None = None
    """For a dictionary of the gradient affinity: the same with gradient-aware selection. It leaks the next token."""
    by_position: list[PositionSlice] | None = None
    """Predictions by where in its row the model makes them; null in a report from before these were taken."""
    by_label: list[LabelSlice] | None = None
    """Predictions by what is known of the predicted token; null where nothing is."""
    documents_sha256: str | None = None
    """Checksum of the file of sums beside it, document by document; null where they were not kept."""


class SparsityReport(Report):
    """Who fires how often, and which latents say the same."""

    suite: Literal["sparsity"] = "sparsity"
    metrics: SparsityMetrics


ReportT = TypeVar("ReportT", bound=SavedReport)


def load_report(cls: type[ReportT], path: Path) -> ReportT:
    """Read a report back.

    Raises:
        UserError: the file is missing, damaged, or of another schema version.
    """
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    ours = cls.model_fields["schema_version"].default
    if version != ours:
        raise UserError(f"{path} has report schema version {version}, and this saelab reads {ours}; make it again")
    try:
        return cls.model_validate(content)
    except ValueError as error:
        raise UserError(f"{path} is not a {cls.__name__}: {str(error).splitlines()[0]}") from None
