"""What is missing is measured as what is there was, so that all of it compares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saelab.config import build
from saelab.disk import RunPaths
from saelab.evaluation.config import EvaluateConfig
from saelab.evaluation.evaluate import evaluate
from saelab.evaluation.report import load_report
from saelab.evaluation.reports import REPORTS, AnyReport


def complete(runs: Sequence[Path]) -> None:
    """Make the reports that some runs have and others lack, and fidelity and sparsity of all, in one pass.

    Raises:
        UserError: reports that are there were made with other settings than the first one.
    """
    found: dict[str, AnyReport] = {}
    for suite, kind in REPORTS.items():
        for run in runs:
            if suite not in found and RunPaths(run).report(suite).is_file():
                found[suite] = load_report(kind, RunPaths(run).report(suite))
    settings = _settings(next(iter(found.values()))) if found else {}
    suites = list(dict.fromkeys(["fidelity", "sparsity", *found]))
    evaluate(build(EvaluateConfig, {"runs": list(runs), "suites": suites, **settings}, where="--evaluate"))


def _settings(report: AnyReport) -> dict[str, Any]:
    about = report.about
    known = {name: value for name, value in about.settings.items() if name in EvaluateConfig.model_fields}
    return {**known, "corpus": about.corpus, "dtype": about.dtype, "seed": about.seed}
