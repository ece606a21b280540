"""Runs that differ in nothing but their seed: one training, done several times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Final

from saelab.evaluation.compare.candidates import Candidate
from saelab.evaluation.compare.report import GroupPart, SpreadPart
from saelab.evaluation.compare.tested import SHOWN

SPREAD: Final = (*SHOWN, "loss_recovered_mean", "dead_fraction")
"""Numbers of the fidelity suite whose spread over seeds is reported."""


def groups(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """Runs of the same settings together, under the first one's name; a run whose settings are unknown stands alone."""
    alike: dict[tuple, list[Candidate]] = {}
    for candidate in candidates:
        key = (candidate.settings or candidate.name, candidate.settings is None, candidate.place)
        alike.setdefault(key, []).append(candidate)
    return {
        members[0].name if len(members) == 1 else f"{members[0].name} and {len(members) - 1} more seeds": members
        for members in alike.values()
    }


def spreads(grouped: Mapping[str, Sequence[Candidate]]) -> list[GroupPart]:
    """Mean and standard deviation over seeds, where there is more than one."""
    return [
        GroupPart(
            name=name,
            members=[member.name for member in members],
            numbers=[_spread(metric, members) for metric in SPREAD],
        )
        for name, members in grouped.items()
        if len(members) > 1
    ]


def _spread(metric: str, members: Sequence[Candidate]) -> SpreadPart:
    values = [getattr(member.fidelity.metrics, metric) for member in members]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return SpreadPart(metric=metric, mean=None, deviation=None, values=values)
    return SpreadPart(metric=metric, mean=mean(known), deviation=stdev(known), values=values)
