"""The comparison as tables, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest
from typing import Final

from saelab.evaluation.compare.candidates import Candidate
from saelab.evaluation.compare.curves import TOLERANCE
from saelab.evaluation.compare.report import (
    CompareReport,
    DifferencePart,
    GroupPart,
    MatchPart,
    PairPart,
    ReadingPart,
    StabilityPart,
)
from saelab.evaluation.compare.tested import DAMAGE, head_of, is_better, title_of
from saelab.evaluation.page import Cell, Mark, Table
from saelab.evaluation.provenance import ReportPart
from saelab.evaluation.report import FidelityMetrics
from saelab.evaluation.tables import conditions, intervals_of, off_budget, short, unit_of

SUMMARY: Final = {
    "fidelity": ("l0", "delta_ce", "kl", "loss_recovered_mean", "fvu", "dead_fraction"),
    "labels": ("best_f1", "probe_f1_5", "dense_f1"),
    "steering": ("gain_per_harm", "gain_per_harm_random", "on", "selectivity"),
}
"""What the one table of all runs shows of each suite."""


def tables(report: CompareReport, candidates: Sequence[Candidate]) -> Iterator[Table]:
    """Those for a terminal: narrow, and of stability only what concerns the baseline."""
    for suite in SUMMARY:
        if any(suite in candidate.reports for candidate in candidates):
            yield summary(candidates, [suite], with_intervals=False)
    if report.pairs:
        wide = pairs(report)
        yield _narrow(wide, [([pair.run, f"L0 {_l0(pair).plain}"], pair.differences) for pair in report.pairs])
    if report.matches:
        wide = matches(report)
        yield _narrow(wide, [(_said(match), match.differences) for match in report.matches])
    if report.groups:
        yield seeds(report.groups)
    concerned = [part for part in report.stability if report.baseline in (part.a, part.b)]
    if concerned:
        yield stability(concerned, report)


def _narrow(wide: Table, compared: Sequence[tuple[Sequence[str], Sequence[DifferencePart]]]) -> Table:
    """The same with a line for each number; what is compared stands before them, over several lines."""
    rows: list[list[Cell | str]] = []
    for names, differences in compared:
        of = [part for part in differences if part.metric != "l0"]
        for name, part in zip_longest(names, of, fillvalue=None):
            if part is None:
                rows.append([name or "", "", "", "", ""])
                continue
            cell = _difference(part)
            rows.append([name or "", title_of(part.metric), Cell(cell.text, mark=cell.mark), _ends(part), _p(part)])
    head = ["", "", "difference", "95 %", "p (Holm)"]
    return Table(head, rows, wide.title, wide.caption, wide.warnings, words=[1, 3])


def _said(match: MatchPart) -> list[str]:
    return [f"L0 {match.theirs.l0:.4g}: {_reading(match.ours).plain}", f"minus {_reading(match.theirs).plain}"]


def summary(
    candidates: Sequence[Candidate], suites: Collection[str] = tuple(SUMMARY), with_intervals: bool = True
) -> Table:
    """Every run a row: what it keeps, what it costs, what it tells."""
    columns = [
        (suite, name)
        for suite, names in SUMMARY.items()
        for name in names
        if suite in suites and any(suite in candidate.reports for candidate in candidates)
    ]
    held = {suite: next(c.reports[suite] for c in candidates if suite in c.reports) for suite, _ in columns}
    heads = _head if with_intervals else _title
    titles = [heads(type(held[suite].metrics), name) for suite, name in columns]
    rows = [
        [candidate.name, *(_number(candidate, suite, name, with_intervals) for suite, name in columns)]
        for candidate in candidates
    ]
    reports = [candidate.reports[suite] for suite in held for candidate in candidates if suite in candidate.reports]
    notes = list(dict.fromkeys(conditions([report.about for report in reports])))
    title = "All runs" if len(held) > 1 else f"All runs, {next(iter(held))}"
    return Table(["", *titles], rows, title, notes, list(dict.fromkeys(filter(None, map(off_budget, reports)))))


def pairs(report: CompareReport, names: Sequence[str] | None = None) -> Table:
    """Every run minus the baseline, on the same documents.

    Args:
        names: of the numbers shown; all that are tested, when left out.
    """
    names = tested_of(report.pairs) if names is None else names
    rows = [[pair.run, _l0(pair), *_differences(pair.differences, names)] for pair in report.pairs]
    notes = [_how_tested(report, sum(part.p is not None for pair in report.pairs for part in pair.differences))]
    others = [pair.run for pair in report.pairs if not _same_l0(pair.l0_ratio)]
    warnings = [
        f"warning: {', '.join(others)}: L0 differs by more than {TOLERANCE:.0%} from that of {report.baseline}, so the "
        "difference is that of two budgets as well; the table at the same L0 is the fair one"
    ] if others else []  # fmt: skip
    title = f"Minus {report.baseline}, paired over documents"
    return Table(["", "L0", *map(head_of, names)], rows, title, notes, warnings)


def matches(report: CompareReport) -> Table:
    """Every other curve minus the baseline's, where both can be read at the same L0."""
    rows: list[list[Cell | str]] = []
    for name in dict.fromkeys(match.curve for match in report.matches):
        of_curve = [match for match in report.matches if match.curve == name]
        rows.append([Cell(f"{name}, minus {of_curve[0].baseline}")])
        rows += [_match(match) for match in of_curve]
    notes = [
        "Between two dictionaries of a curve numbers are taken to be linear in log L0 (shares behind the names); no "
        "interval contains the error of that. Nothing is extrapolated; an end of a curve within 5 % of the L0 stands "
        "for it.",
        _how_tested(report, sum(part.p is not None for match in report.matches for part in match.differences)),
    ]
    title = "At the same L0, paired over documents"
    return Table(["L0", "ours", "baseline", *map(head_of, DAMAGE)], rows, title, notes, words=[1, 2])


def seeds(groups: Sequence[GroupPart]) -> Table:
    """Mean and standard deviation over the seeds of the same settings."""
    names = [part.metric for part in groups[0].numbers]
    rows = [
        [group.name, f"{len(group.members)}", *(_spread(part.mean, part.deviation) for part in group.numbers)]
        for group in groups
    ]
    notes = [f"{group.name}: {', '.join(group.members)}." for group in groups]
    notes.append("± is the standard deviation over seeds (n - 1), which no interval over documents contains.")
    return Table(["", "seeds", *(_head(FidelityMetrics, name) for name in names)], rows, "Over seeds", notes)


def stability(parts: Sequence[StabilityPart], report: CompareReport) -> Table:
    """How far every two dictionaries at one site have found the same directions."""
    seed = {run.name: "?" if run.seed is None else str(run.seed) for run in report.runs}
    rows = [
        [
            part.a, part.b, f"{seed[part.a]}, {seed[part.b]}",
            *(short(getattr(part.found, name)) for name in (
                "mean_max_cosine_ab", "mean_max_cosine_ba", "matched_cosine", "matched_over_07", "matched_over_09",
            )),
        ]
        for part in parts
    ]  # fmt: skip
    head = ["a", "b", "seeds", "a in b", "b in a", "matched", "above 0.7", "above 0.9"]
    note = (
        "Decoder directions. a in b: mean over latents of a of the cosine with the nearest latent of b. matched: mean "
        "cosine of one-to-one partners (largest sum), and shares of partners above 0.7 and 0.9. Trainings of the same "
        "seed and size start from the same weights, so only pairs of different seeds say what a training finds."
    )
    return Table(head, rows, "Stability: the same latents?", [note], words=[1])


def tested_of(pairs: Sequence[PairPart]) -> list[str]:
    """Names of the numbers that any pair compares, but for L0."""
    every = {part.metric: None for pair in pairs for part in pair.differences}
    return [name for name in every if name != "l0"]


def _l0(pair: PairPart) -> Cell:
    part = next(part for part in pair.differences if part.metric == "l0")
    ratio = "" if pair.l0_ratio is None else f"({pair.l0_ratio - 1:+.1%})"
    return Cell(_signed(part.value), ratio, "" if _same_l0(pair.l0_ratio) else "bad")


def _same_l0(ratio: float | None) -> bool:
    return ratio is not None and abs(ratio - 1) <= TOLERANCE


def _how_tested(report: CompareReport, tests: int) -> str:
    least = tests / (report.resamples + 1)
    return (
        f"Brackets: 95 % paired bootstrap over documents ({report.resamples:,} samples, seed {report.seed}). p: "
        f"two-sided, {report.resamples:,} random swaps of the two dictionaries document by document, Holm-corrected "
        f"for the {tests} tests of this comparison (the least that can come out is {least:.1g}); * p < 0.05. They say "
        "how sure the difference of these very dictionaries is on such text, not how other seeds would come out."
    )


def _number(candidate: Candidate, suite: str, name: str, with_interval: bool) -> Cell | str:
    report = candidate.reports.get(suite)
    value = None if report is None else getattr(report.metrics, name)
    if report is None or value is None:
        return "–"
    interval = intervals_of(report).get(name) if with_interval else None
    if interval is None or interval.low is None or interval.high is None:
        return short(value)
    return Cell(short(value), f"({short(interval.low)} … {short(interval.high)})")


def _title(metrics: type[ReportPart], name: str) -> str:
    return metrics.model_fields[name].title or name


def _head(metrics: type[ReportPart], name: str) -> str:
    unit = unit_of(metrics, name)
    return f"{_title(metrics, name)} ({unit})" if unit else _title(metrics, name)


def _differences(parts: Sequence[DifferencePart], names: Sequence[str]) -> list[Cell]:
    by_name = {part.metric: part for part in parts}
    return [_difference(by_name[name]) if name in by_name else Cell("not compared", mark="faint") for name in names]


def _difference(part: DifferencePart) -> Cell:
    mark: Mark = "" if not part.is_sure else "good" if is_better(part) else "bad"
    star = "*" if part.is_sure else ""
    p = _p(part)
    said = p and f"p {p}" if p.startswith("<") else p and f"p = {p}"
    return Cell(_signed(part.value) + star, " ".join(filter(None, (_ends(part), said))), mark)


def _ends(part: DifferencePart) -> str:
    return "" if part.low is None or part.high is None else f"[{_signed(part.low)}, {_signed(part.high)}]"


def _p(part: DifferencePart) -> str:
    return "" if part.p_holm is None else "< 0.001" if part.p_holm < 0.001 else f"{part.p_holm:.3f}"


def _match(match: MatchPart) -> list[Cell | str]:
    return [
        f"{match.theirs.l0:.4g}",
        _reading(match.ours),
        _reading(match.theirs),
        *_differences(match.differences, DAMAGE),
    ]


def _reading(reading: ReadingPart) -> Cell:
    if reading.share == 0:
        return Cell(reading.left, f"(L0 {reading.l0:.4g})")
    return Cell(f"{reading.left} … {reading.right}", f"({1 - reading.share:.0%}, {reading.share:.0%})")


def _spread(mean: float | None, deviation: float | None) -> Cell:
    return Cell(short(mean), "" if deviation is None else f"± {short(deviation)}")


def _signed(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:+.2e}" if abs(value) < 1e-4 else f"{value:+.4f}"
