"""What `saelab compare` finds: every number with a title, a description and a unit; the published schema."""

from __future__ import annotations

from typing import Any, Literal

from saelab.evaluation.provenance import Provenance, ReportPart
from saelab.evaluation.report import Number, SavedReport, number
from saelab.evaluation.stability import Stability


class DifferencePart(ReportPart):
    """One number of ours minus the baseline's, on the same documents."""

    metric: str
    """Name of the number in the fidelity report."""
    value: Number = number("Difference", "Ours minus the baseline's.", "that of the metric")
    low: Number = number("From", "2.5 % quantile over paired bootstrap samples of the documents.", "that of the metric")
    high: Number = number("To", "97.5 % quantile.", "that of the metric")
    p: Number = number("p", "Two-sided, by random swaps document by document; null where nothing is tested.", "")
    p_holm: Number = number("p (Holm)", "Corrected for all tests of this table.", "")

    @property
    def is_sure(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_holm is not None and self.p_holm < 0.05


class RunPart(ReportPart):
    """A run that takes part."""

    name: str
    path: str
    suites: list[str]
    """Of which it has a finished report."""
    group: str
    """The runs that differ from it in nothing but their seed go by this name together."""
    curve: str
    """The runs that differ from it in how many latents they keep."""
    seed: int | None
    """Of its training; null where it is not recorded."""
    about: Provenance
    """The conditions of its fidelity report."""


class PairPart(ReportPart):
    """A run against the baseline."""

    run: str
    baseline: str
    l0_ratio: Number = number("L0 ratio", "L0 of the run over that of the baseline.", "")
    differences: list[DifferencePart]


class SpreadPart(ReportPart):
    """A number over the seeds of the same settings."""

    metric: str
    mean: Number = number("Mean", "Over seeds.", "that of the metric")
    deviation: Number = number("Standard deviation", "Over seeds, n - 1 in the denominator.", "that of the metric")
    values: list[Number] = number("By seed", "In the order of the members.", "that of the metric")


class GroupPart(ReportPart):
    """Runs that differ in nothing but their seed."""

    name: str
    members: list[str]
    numbers: list[SpreadPart]


class KnotPart(ReportPart):
    """A dictionary, or the mean of seeds, on its curve."""

    name: str
    l0: float = number("L0", "Mean number of latents that fire on a token.", "latents/token")


class CurvePart(ReportPart):
    """Dictionaries that are alike but for how many latents they keep."""

    name: str
    knots: list[KnotPart]


class ReadingPart(ReportPart):
    """A curve at one L0."""

    left: str
    right: str
    share: float = number("Share", "Of the right one; the left one has the rest. Linear in log L0.", "")
    l0: float = number("L0", "Where the curve was read.", "latents/token")


class MatchPart(ReportPart):
    """A curve against the baseline's, at the same L0."""

    curve: str
    baseline: str
    ours: ReadingPart
    theirs: ReadingPart
    differences: list[DifferencePart]


class StabilityPart(ReportPart):
    """Two dictionaries at one site: how far they found the same directions."""

    a: str
    b: str
    found: Stability


class CompareReport(SavedReport):
    """Runs held against each other."""

    suite: Literal["compare"] = "compare"
    baseline: str
    """The run that the others are compared with."""
    resamples: int
    """Bootstrap samples behind each interval, and permutations behind each p-value."""
    seed: int
    """Seed of both."""
    created: str
    """When, in ISO 8601 (UTC)."""
    saelab_version: str
    """Version of saelab that compared."""
    warnings: list[str]
    """What a reader has to know before believing the rest."""
    missing: list[str]
    """Reports that are not there, and the commands that make them."""
    runs: list[RunPart]
    pairs: list[PairPart]
    """Every run against the baseline; p-values are corrected over all of this list."""
    groups: list[GroupPart]
    """Settings that were trained with more than one seed."""
    curves: list[CurvePart]
    matches: list[MatchPart]
    """Curves against the baseline's at the same L0; p-values are corrected over all of this list."""
    unmatched: list[str]
    """Curves that can't be read at any L0 of the baseline's, and why."""
    stability: list[StabilityPart]


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the report."""
    return CompareReport.model_json_schema(mode="serialization")
