"""Which report each suite ends in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelab.evaluation.config import Suite
from saelab.evaluation.labels.report import LabelsReport
from saelab.evaluation.report import FidelityReport, SparsityReport

AnyReport = FidelityReport | SparsityReport | LabelsReport
REPORTS: Mapping[Suite, type[FidelityReport] | type[SparsityReport] | type[LabelsReport]] = {
    "fidelity": FidelityReport,
    "sparsity": SparsityReport,
    "labels": LabelsReport,
}


def json_schema(suite: Suite) -> dict[str, Any]:
    """JSON Schema (2020-12) of a suite's report, with title, description and unit of every number."""
    return REPORTS[suite].model_json_schema(mode="serialization")
