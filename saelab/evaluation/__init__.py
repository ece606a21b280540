"""Dictionary + model + held-out text → reports. Definitions of all numbers: docs/metrics.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saelab.lazy import exports

if TYPE_CHECKING:
    from saelab.evaluation.batch import Subject as Subject
    from saelab.evaluation.config import EvaluateConfig as EvaluateConfig
    from saelab.evaluation.report import FidelityReport as FidelityReport
    from saelab.evaluation.report import SparsityReport as SparsityReport
    from saelab.evaluation.report import load_report as load_report
    from saelab.evaluation.reports import json_schema as json_schema
    from saelab.evaluation.tables import table as table

__getattr__, __all__ = exports(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "EvaluateConfig": "saelab.evaluation.config",
        "FidelityReport": "saelab.evaluation.report",
        "SparsityReport": "saelab.evaluation.report",
        "Subject": "saelab.evaluation.batch",
        "json_schema": "saelab.evaluation.reports",
        "load_report": "saelab.evaluation.report",
        "table": "saelab.evaluation.tables",
    },
)
