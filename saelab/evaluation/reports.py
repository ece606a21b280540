"""Which report each suite ends in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saelab.evaluation.config import Suite
from saelab.evaluation.labels.report import LabelsReport
from saelab.evaluation.report import FidelityReport, SparsityReport
from saelab.evaluation.steering.report import SteeringReport

AnyReport = FidelityReport | SparsityReport | LabelsReport | SteeringReport
REPORTS: Mapping[Suite, type[FidelityReport] | type[SparsityReport] | type[LabelsReport] | type[SteeringReport]] = {
    "fidelity": FidelityReport,
    "sparsity": SparsityReport,
    "labels": LabelsReport,
    "steering": SteeringReport,
}


def json_schema(suite: Suite) -> dict[str, Any]:
    """JSON Schema (2020-12) of a suite's report, with title, description and unit of every number."""
    return REPORTS[suite].model_json_schema(mode="serialization")
