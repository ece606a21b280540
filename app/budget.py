"""Does a dictionary keep what it was trained to keep? Where it does not, how far off it is and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any

from app.notation import short
from app.workspace import Run
from saelab.dictionaries.config import BUDGET_TOLERANCE
from saelab.evaluation.report import FidelityMetrics

SHOWN = 6  # warnings; the marks in the table show the others


@dataclass(frozen=True)
class Budget:
    """Latents that a run's dictionary keeps per token, against the k of its training."""

    run: Run
    l0: float
    ratio: float
    has_thresholds: bool

    @classmethod
    def of(cls, run: Run, config: dict[str, Any], metrics: FidelityMetrics | None) -> Budget | None:
        """None where there is no report or no budget."""
        if metrics is None or metrics.l0 is None or metrics.l0_over_k is None:
            return None
        return cls(run, metrics.l0, metrics.l0_over_k, config.get("rule") == "threshold")

    @property
    def is_off(self) -> bool:
        return abs(self.ratio - 1) > BUDGET_TOLERANCE

    @property
    def sentence(self) -> str:
        """What is wrong."""
        return f"keeps {short(self.l0)} latents per token, {self.ratio - 1:+.0%} of what it was trained to keep"


def mark(budget: Budget | None) -> str:
    """A sign behind a number that is off its budget, with the sentence under the pointer; "" for all others."""
    if budget is None or not budget.is_off:
        return ""
    return f' <span class="sl-warn" tabindex="0" data-tip="{escape(budget.sentence)}">!</span>'


def warnings(budgets: Iterable[Budget]) -> str:
    """A line for each dictionary that is off its budget, with the command that sets its thresholds anew."""
    off = sorted((budget for budget in budgets if budget.is_off), key=lambda b: abs(b.ratio - 1), reverse=True)
    lines = "".join(f"<li>{_line(budget)}</li>" for budget in off[:SHOWN])
    more = f"<li>and {len(off) - SHOWN} more, marked in the table</li>" if len(off) > SHOWN else ""
    return f'<ul class="sl-warnings">{lines}{more}</ul>' if off else ""


def _line(budget: Budget) -> str:
    said = f"<b>{escape(budget.run.name)}</b> {escape(budget.sentence)}."
    if not budget.has_thresholds:
        return said
    command = escape(f"saelab calibrate {budget.run.paths.root} --write")
    return f"{said} Its thresholds can be set anew: <code>{command}</code>"
