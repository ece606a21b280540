"""The dictionaries that the evidence on the bundled model is made of: architecture × auxiliary loss × seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

AUXILIARIES = ("none", "aux_k", "aux_zipf")
GRID: dict[str, dict[str, Any]] = {
    "topk": {"sae.preset": "topk"},
    "mutual-choice": {"sae.preset": "mutual-choice"},
    "feature-choice": {"sae.preset": "feature-choice"},
    "gradient": {"sae.preset": "gradient"},
    "gradient × mutual": {"sae.preset": "gradient", "sae.allocation.kind": "mutual"},
    "gradient × feature": {"sae.preset": "gradient", "sae.allocation.kind": "feature"},
}
BASELINES = ("matryoshka", "relu", "jumprelu", "gated")  # with the auxiliary loss of their preset


@dataclass(frozen=True)
class Cell:
    """One row of a table: settings that all its seeds share."""

    architecture: str
    aux: str
    reading: str = ""
    """What is read otherwise than by default; empty in the grid itself."""
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """Of its run directories."""
        words = (self.architecture, self.aux, self.reading)
        return "-".join(word.replace(" × ", "+").replace(" ", "_") for word in words if word)


def grid() -> list[Cell]:
    """The six points of affinity × allocation with each auxiliary loss, and the baselines."""
    points = [
        Cell(name, aux, overrides={**settings, "sae.aux.kind": aux})
        for name, settings in GRID.items()
        for aux in AUXILIARIES
    ]
    return points + [
        Cell(name, "aux_k" if name == "matryoshka" else "none", overrides={"sae.preset": name}) for name in BASELINES
    ]


def readings() -> list[Cell]:
    """What METHODS leaves open, each against the grid's cell of the same architecture and auxiliary loss."""
    others: Sequence[tuple[str, str, str, dict[str, Any]]] = (
        ("feature-choice", "aux_k", "no straight-through", {"sae.allocation.straight_through": False}),
        ("feature-choice", "aux_k", "uniform budgets", {"sae.allocation.budgets": "uniform"}),
        ("feature-choice", "aux_k", "mutual for 60 %", {"sae.allocation.warmup_fraction": 0.6}),
        ("topk", "aux_zipf", "c 0.25", {"sae.aux.c": 0.25}),
        ("topk", "aux_zipf", "c 1", {"sae.aux.c": 1.0}),
        ("gradient", "aux_k", "value affinity", {"sae.affinity.value": "affinity"}),
        ("gradient", "aux_k", "normalise none", {"sae.affinity.normalise": "none"}),
    )
    return [
        Cell(name, aux, reading, {**GRID[name], "sae.aux.kind": aux, **settings})
        for name, aux, reading, settings in others
    ]
