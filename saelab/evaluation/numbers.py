"""What a number in a report is: a title, a description, a unit, and perhaps an interval. Undefined is null."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from saelab.evaluation.provenance import ReportPart


def _finite_or_null(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite_or_null)]


def number(title: str, description: str, unit: str, default: Any = ...) -> Any:
    """A field of a report: what it is called, what it means, what it is counted in ("" = a pure ratio).

    Args:
        default: for numbers that earlier reports of the same schema version do not have.
    """
    return Field(default, title=title, description=description, json_schema_extra={"unit": unit})


class Interval(ReportPart):
    """Where the number lies in 95 % of bootstrap samples of the documents."""

    low: Number
    high: Number


class Intervals(ReportPart):
    """Percentile bootstrap over documents."""

    level: float = 0.95
    """Share of samples between the two ends."""
    resamples: int
    """Samples drawn; each has as many documents as the text."""
    of: dict[str, Interval]
    """By name of the number; null ends where there were too few documents."""
