"""`saelab compare`: the finished reports of runs in, what can be said of their differences out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import saelab
from saelab.dictionaries.artifact import load
from saelab.errors import UserError
from saelab.evaluation.compare import comparable, matched, paired, seeds
from saelab.evaluation.compare.candidates import Candidate, missing, read
from saelab.evaluation.compare.config import CompareConfig
from saelab.evaluation.compare.report import CompareReport, RunPart, StabilityPart
from saelab.evaluation.stability import stability
from saelab.progress import track


class Comparison(NamedTuple):
    """The report, and the runs' own reports that stand behind it, under the names that it uses."""

    report: CompareReport
    candidates: list[Candidate]


def compare(config: CompareConfig) -> Comparison:
    """Read the reports of all runs and hold them against each other; nothing is measured anew.

    Raises:
        UserError: a run has no fidelity report, or reports were not made under the same conditions.
    """
    candidates = read(config.runs)
    baseline = _baseline(config.baseline, candidates)
    comparable.check(candidates)
    groups = seeds.groups(candidates)
    curve_of = matched.curve_names(candidates)
    curves = matched.curves(groups, curve_of)
    pairing, label_pairing = paired.pairing_of(candidates, config), paired.label_pairing_of(candidates, config)
    group_of = {member.name: name for name, members in groups.items() for member in members}
    report = CompareReport(
        baseline=baseline.name,
        resamples=config.resamples,
        seed=config.seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        saelab_version=saelab.__version__,
        warnings=[*comparable.warnings(candidates), *([] if pairing else [_unpaired(candidates)])],
        missing=list(missing(candidates)),
        runs=[_run(of, group_of[of.name], curve_of[of.name]) for of in candidates],
        pairs=[] if pairing is None else paired.pair_parts(pairing, label_pairing, candidates, baseline),
        groups=seeds.spreads(groups),
        curves=[matched.curve_part(curve) for curve in curves.values()],
        matches=[] if pairing is None else matched.match_parts(pairing, groups, curves, curve_of[baseline.name]),
        unmatched=list(matched.unmatched(curves, curve_of[baseline.name])),
        stability=list(_stability(candidates)) if config.stability else [],
    )
    return Comparison(report, candidates)


def _baseline(given: Path | None, candidates: Sequence[Candidate]) -> Candidate:
    if given is None:
        return candidates[0]
    for candidate in candidates:
        if candidate.run.resolve() == given.resolve() or candidate.name == str(given):
            return candidate
    raise UserError(f"the baseline {given} is not one of the runs: {', '.join(c.name for c in candidates)}")


def _unpaired(candidates: Sequence[Candidate]) -> str:
    runs = " ".join(str(candidate.run) for candidate in candidates)
    return (
        "Differences are not paired and not tested: a report keeps no sums per document. "
        f"`saelab evaluate {runs} --overwrite` makes reports that do."
    )


def _run(candidate: Candidate, group: str, curve: str) -> RunPart:
    suites = [*candidate.reports, *(["ioi"] if candidate.ioi else [])]
    return RunPart(
        name=candidate.name, path=str(candidate.run), suites=suites, group=group, curve=curve,
        seed=candidate.seed, about=candidate.about,
    )  # fmt: skip


def _stability(candidates: Sequence[Candidate]) -> Iterator[StabilityPart]:
    """Every pair at the same site of the same model."""
    pairs = [(a, b) for a, b in combinations(candidates, 2) if a.place == b.place]
    loaded = {c.name: load(c.run) for c in {id(c): c for pair in pairs for c in pair}.values()}
    with track(len(pairs), "stability", "pairs") as bar:
        for a, b in pairs:
            yield StabilityPart(a=a.name, b=b.name, found=stability(loaded[a.name], loaded[b.name]))
            bar.advance(1)
