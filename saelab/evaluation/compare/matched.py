"""Architectures against the baseline's at the same L0, paired over documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

import torch

from saelab.evaluation.compare.candidates import Candidate
from saelab.evaluation.compare.curves import Curve, Knot, Reading, matches
from saelab.evaluation.compare.pairing import Pairing
from saelab.evaluation.compare.report import CurvePart, KnotPart, MatchPart, ReadingPart
from saelab.evaluation.compare.tested import rows


def curve_names(candidates: Sequence[Candidate]) -> dict[str, str]:
    """By run: what it has in common with those that differ from it in how many latents they keep.

    Architecture, number of latents and site; of the latter two, what is the same for all runs is not said.
    """
    sizes, places = {c.about.d_sae for c in candidates}, {c.place for c in candidates}

    def name(candidate: Candidate) -> str:
        about = candidate.about
        size = f"{about.d_sae:,} latents" if len(sizes) > 1 else ""
        return ", ".join(
            filter(None, (about.architecture, size, " → ".join(candidate.place) if len(places) > 1 else ""))
        )

    return {candidate.name: name(candidate) for candidate in candidates}


def curves(groups: Mapping[str, Sequence[Candidate]], names: Mapping[str, str]) -> dict[str, Curve]:
    """By name; seeds of the same settings are one knot, at their mean L0."""
    knots: dict[str, list[Knot]] = {}
    for name, members in groups.items():
        l0 = mean(member.fidelity.metrics.l0 or 0.0 for member in members)
        if l0 > 0:
            knots.setdefault(names[members[0].name], []).append(Knot(name, l0))
    return {name: Curve.of(name, of_curve) for name, of_curve in knots.items()}


def curve_part(curve: Curve) -> CurvePart:
    """The curve as the report has it."""
    return CurvePart(name=curve.name, knots=[KnotPart(name=knot.name, l0=knot.l0) for knot in curve.knots])


def unmatched(curves: Mapping[str, Curve], baseline: str) -> Iterator[str]:
    """A sentence on every curve that shares no L0 with the curve `baseline`."""
    theirs = curves.get(baseline)
    for curve in curves.values():
        if theirs is None or curve is theirs or any(True for _ in matches(curve, theirs)):
            continue
        ours, others = (_range(of) for of in (curve, theirs))
        yield (
            f"{curve.name} (L0 {ours}) and {theirs.name} (L0 {others}) have no L0 in common: nothing can be "
            "interpolated, and nothing is extrapolated."
        )


def _range(curve: Curve) -> str:
    ends = [f"{knot.l0:.4g}" for knot in (curve.knots[0], curve.knots[-1])]
    return " to ".join(dict.fromkeys(ends))


def match_parts(
    pairing: Pairing, groups: Mapping[str, Sequence[Candidate]], curves: Mapping[str, Curve], baseline: str
) -> list[MatchPart]:
    """Every other curve at the site of the curve `baseline` against it, wherever both can be read."""
    theirs = curves.get(baseline)
    if theirs is None:
        return []
    place = {curve.name: groups[curve.knots[0].name][0].place for curve in curves.values()}
    for name, members in groups.items():
        pairing.tables[name] = torch.stack([pairing.tables[member.name] for member in members]).mean(0)
    found = [
        (curve, match)
        for curve in curves.values()
        if curve is not theirs and place[curve.name] == place[baseline]
        for match in matches(curve, theirs)
    ]
    pairs = [(_mixed(pairing, match.ours), _mixed(pairing, match.theirs)) for _, match in found]
    return [
        MatchPart(
            curve=curve.name, baseline=theirs.name, ours=_part(match.ours), theirs=_part(match.theirs), differences=row
        )
        for (curve, match), row in zip(found, rows(pairing.differences(pairs), [True] * len(pairs)), strict=True)
    ]  # fmt: skip


def _mixed(pairing: Pairing, reading: Reading) -> str:
    """The name of the table of sums that a curve has at one L0; made if it is new."""
    if reading.share == 0:
        return reading.left.name
    left, right = (pairing.tables[knot.name] for knot in (reading.left, reading.right))
    name = f"{1 - reading.share!r} {reading.left.name} + {reading.share!r} {reading.right.name}"
    pairing.tables[name] = torch.lerp(left, right, reading.share)
    return name


def _part(reading: Reading) -> ReadingPart:
    return ReadingPart(left=reading.left.name, right=reading.right.name, share=reading.share, l0=reading.l0)
