"""Which numbers are compared, which of them are tested, and the rows of a report that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from saelab.evaluation.bootstrap import Numbers
from saelab.evaluation.compare.pairing import Difference, holm
from saelab.evaluation.compare.report import DifferencePart
from saelab.evaluation.labels.report import LabelsMetrics
from saelab.evaluation.provenance import ReportPart
from saelab.evaluation.report import FidelityMetrics
from saelab.evaluation.substitution import numbers
from saelab.evaluation.tables import unit_of

DAMAGE: Final = ("delta_ce", "kl", "fvu")
"""Numbers of the fidelity suite whose differences are tested; less is better of each."""
OF_ACTIVATIONS: Final = ("fvu",)
"""Of these, what compares only at the same site."""
SHOWN: Final = ("l0", *DAMAGE)
"""Numbers of the fidelity suite whose differences are reported. L0 is a condition and no finding: it is not tested."""
DETECTORS: Final = {"best_f1": "best", "probe_f1_5": "probe_5"}
"""Numbers of the labels suite whose differences are tested, more is better; and whose detections they are means of."""
MARKS: Final = frozenset({"positive", *(f"{by}.{part}" for by in DETECTORS.values() for part in ("on", "hits"))})
"""Of the labels suite's sums, what these numbers are made of."""


def shown(sums: Mapping[str, Tensor]) -> Numbers:
    """From the fidelity suite's sums over documents to the numbers that are compared."""
    found = numbers(sums)
    return {name: found[name] for name in SHOWN}


def of_labels(sums: Mapping[str, Tensor]) -> Numbers:
    """The same of the labels suite: F1, mean over the labels that the documents hold."""
    n = sum(name.startswith("positive ") for name in sums)

    def column(mark: str) -> Tensor:
        return torch.stack([sums[f"{mark} {i}"] for i in range(n)])

    positive = column("positive")
    return {
        name: (2 * column(f"{by}.hits") / (column(f"{by}.on") + positive)).nanmean(0) for name, by in DETECTORS.items()
    }


def metrics_of(name: str) -> type[ReportPart]:
    """The part of a report that defines a number."""
    return LabelsMetrics if name in DETECTORS else FidelityMetrics


def title_of(name: str) -> str:
    """What a number is called."""
    return metrics_of(name).model_fields[name].title or name


def head_of(name: str) -> str:
    """What a number is called, with its unit."""
    unit = unit_of(metrics_of(name), name)
    return f"{title_of(name)} ({unit})" if unit else title_of(name)


def is_better(part: DifferencePart) -> bool:
    """Whether ours is the better one, sure or not."""
    value = part.value or 0.0
    return value > 0 if part.metric in DETECTORS else value < 0


def rows(found: Sequence[Mapping[str, Difference]], same_place: Sequence[bool]) -> list[list[DifferencePart]]:
    """The differences of one table, p-values corrected for all of its tests.

    Args:
        same_place: whether the two dictionaries of a row stand at the same site.
    """
    plain = [
        [_part(name, of) for name, of in row.items() if same or name not in OF_ACTIVATIONS]
        for row, same in zip(found, same_place, strict=True)
    ]
    corrected = iter(holm([part.p for row in plain for part in row if part.p is not None]))
    return [
        [part if part.p is None else part.model_copy(update={"p_holm": next(corrected)}) for part in row]
        for row in plain
    ]


def _part(name: str, of: Difference) -> DifferencePart:
    p = None if name == "l0" else of.p
    return DifferencePart(metric=name, value=of.value, low=of.low, high=of.high, p=p, p_holm=None)
