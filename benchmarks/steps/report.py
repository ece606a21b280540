"""What the measurements say: ratios round by round, the targets of issue 4, the tables of docs/performance.md."""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.steps import cases
from benchmarks.steps.cases import FLOORS, TOPK
from benchmarks.steps.size import Size
from benchmarks.tables import markdown

TARGET_SIZE = "24576,32,4096"
PRODUCT = "the encoder product"
BUSY = 0.1  # of the processors, for other work


@dataclass(frozen=True)
class Comparison:
    """How many times as long `slow` takes as `fast`, and what was promised of it at TARGET_SIZE."""

    fast: str
    slow: str
    at_least: float | None = None
    at_most: float | None = None


COMPARISONS = (
    *(
        Comparison(PRODUCT, case, at_most=limit)
        for case, limit in ((TOPK, 1.25), ("mutual-choice", 1.25), ("feature-choice", 1.25), ("gradient", 2.5))
    ),
    *(Comparison(TOPK, case, at_most=1.1) for case in ("mutual-choice", "feature-choice")),
    *(Comparison(TOPK, case, at_most=1.2) for case in (cases.AUX_K, cases.AUX_ZIPF)),
    Comparison(TOPK, cases.REFERENCE),
    Comparison(TOPK, cases.SPARSIFY, at_least=2.5),
    Comparison(TOPK, cases.SPARSIFY + cases.SAME, at_least=1.3),
    Comparison(TOPK, cases.SPARSIFY_ADAM),
    Comparison(TOPK, cases.SPARSIFY_ADAM + cases.SAME),
    Comparison(TOPK, cases.DICTIONARY_LEARNING, at_least=8),
    Comparison(TOPK, cases.SAELENS, at_least=11),
    *(
        Comparison(scoring, peer, at_least=limit)
        for scoring in (cases.INT8, cases.BF16)
        for peer, limit in ((cases.SPARSIFY, 4.0), (cases.SPARSIFY + cases.SAME, 2.5))
    ),
    *(
        Comparison(cases.AUX_K, peer + cases.DEAD)
        for peer in (cases.SPARSIFY, cases.DICTIONARY_LEARNING, cases.SAELENS)
    ),
    Comparison(cases.AUX_K, cases.SPARSIFY + cases.DEAD + cases.SAME),
)


@dataclass(frozen=True)
class Ratio:
    """Of two cases' medians, round by round where both had a turn: the median of the rounds, and the extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, slow: dict[str, Any], fast: dict[str, Any]) -> Ratio:
        both = zip(slow["rounds_ms"], fast["rounds_ms"], strict=True)
        rounds = [s / f for s, f in both if s is not None and f is not None]
        return cls(statistics.median(rounds), min(rounds), max(rounds))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


def floor(rows: dict[str, Any]) -> str:
    """The fastest way to compute the encoder product alone."""
    return min((name for name in FLOORS if name in rows), key=lambda name: rows[name]["ms"])


def compared(rows: dict[str, Any], comparison: Comparison) -> Ratio | None:
    """None where one of the two was not measured."""
    fast = floor(rows) if comparison.fast == PRODUCT else comparison.fast
    return Ratio.of(rows[comparison.slow], rows[fast]) if {fast, comparison.slow} <= rows.keys() else None


def processor(rows: dict[str, Any], comparison: Comparison) -> str:
    """The same ratio in processor time, which other work on the machine disturbs less."""
    fast = rows[floor(rows) if comparison.fast == PRODUCT else comparison.fast]
    return f", {rows[comparison.slow]['cpu_ms'] / fast['cpu_ms']:.2f} in CPU time"


def promise(comparison: Comparison) -> str:
    if comparison.at_least:
        return f"≥ {comparison.at_least:g}"
    return f"≤ {comparison.at_most:g}" if comparison.at_most else ""


def verdict(comparison: Comparison, ratio: Ratio) -> str:
    if not promise(comparison):
        return ""
    holds = ratio.median >= (comparison.at_least or 0) and ratio.median <= (comparison.at_most or float("inf"))
    return "met" if holds else "missed"


def table(size: str, run: dict[str, Any]) -> str:
    """One size for a terminal."""
    rows, of = run["cases"], Size.read(size)
    least = rows[floor(rows)]
    lines = [
        f"\n(d_in {of.d_in}, d_sae {of.d_sae}, k {of.k}, batch {of.batch}): {run['rounds']} rounds, "
        f"{run['threads']} threads; other work took {100 * run['others_share']:.0f} % of the processors",
        f"{'':36}{'ms':>8}{'middle half':>15}{'fastest':>9}{'tokens/s':>10}{'× product':>11}{'CPU ms':>9}{'faults':>9}"
        f"{'peak MB':>9}",
    ]
    for name, row in rows.items():
        low, high = row["middle_half_ms"]
        memory = f"{row['peak_mb']:9.0f}" if "peak_mb" in row else ""
        lines.append(
            f"{name:36}{row['ms']:8.1f}{f'{low:.0f}–{high:.0f}':>15}{row['fastest_ms']:9.1f}{row['tokens_per_s']:10.0f}"
            f"{Ratio.of(row, least).median:11.3f}{row['cpu_ms']:9.1f}{row['faults']:9.0f}{memory}"
        )
    for name, row in rows.items():
        if "certified" in row:
            lines.append(
                f"{name}: {100 * row['certified']:.2f} % of rows certified, {row['wrong_picks']} of "
                f"{of.k * of.batch:,} picks differ from fp32"
            )
        if "stages_ms" in row:
            lines.append(f"{name}: " + " · ".join(f"{stage} {ms:.1f}" for stage, ms in row["stages_ms"].items()))
    for comparison in COMPARISONS:
        if ratio := compared(rows, comparison):
            stands = f"  {promise(comparison)} {verdict(comparison, ratio)}" if size == TARGET_SIZE else ""
            lines.append(f"{comparison.slow} / {comparison.fast}: {ratio}{processor(rows, comparison)}{stands}")
    return "\n".join(lines)


def times(report: dict[str, Any]) -> str:
    """Markdown: ms of every case by size, and at the size of the targets its tokens/s and peak memory."""
    runs = {size: run["cases"] for size, run in report["sizes"].items()}
    names = list(dict.fromkeys(name for rows in runs.values() for name in rows))
    wide = runs.get(TARGET_SIZE, {})
    body = []
    for name in names:
        cells = [
            f"{rows[name]['ms']:,.0f} ({Ratio.of(rows[name], rows[floor(rows)]).median:.2f})" if name in rows else ""
            for rows in runs.values()
        ]
        row = wide.get(name, {})
        speed = f"{row['tokens_per_s']:,.0f}" if row else ""
        memory = f"{row['peak_mb']:,.0f}" if "peak_mb" in row else ""
        body.append([name, *cells, speed, memory])
    return markdown(["ms (× product)", *(f"({size})" for size in runs), "tokens/s", "peak MB"], body)


def ratios(report: dict[str, Any]) -> str:
    """Markdown: every comparison by size, lowest and highest round behind the median, and the targets."""
    runs = {size: run["cases"] for size, run in report["sizes"].items()}
    body = []
    for comparison in COMPARISONS:
        found = {size: compared(rows, comparison) for size, rows in runs.items()}
        if any(found.values()):
            ratio = found.get(TARGET_SIZE)
            stands = f"{promise(comparison)} {verdict(comparison, ratio)}".strip() if ratio else ""
            body.append([f"{comparison.slow} / {comparison.fast}", *(str(r or "") for r in found.values()), stands])
    return markdown(["", *(f"({size})" for size in runs), f"target at ({TARGET_SIZE})"], body)


def conditions(report: dict[str, Any]) -> str:
    """Machine, versions, how much else was going on, and whether that was too much to believe the numbers."""
    runs = report["sizes"].values()
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    threads, rounds = ("/".join(str(run[key]) for run in runs) for key in ("threads", "rounds"))
    busy = ", ".join(f"{100 * run['others_share']:.0f} %" for run in runs)
    return (
        f"{report['machine']}; {versions}. By size: {threads} threads, {rounds} rounds; other work took {busy} of the "
        "processors." + (" **The machine was busy: take these numbers as rough.**" if any(map(was_busy, runs)) else "")
    )


def was_busy(run: dict[str, Any]) -> bool:
    return run["others_share"] > BUSY


def rewrite(path: Path, report: dict[str, Any]) -> None:
    """Put tables between a document's markers `<!-- step:NAME -->` and `<!-- /step -->`."""
    text = path.read_text(encoding="utf-8")
    for name, make in {"conditions": conditions, "times": times, "ratios": ratios}.items():
        place = re.search(rf"(?<=<!-- step:{name} -->\n).*?(?=<!-- /step -->)", text, flags=re.DOTALL)
        if place is None:
            raise SystemExit(f"{path} has no place for {name}: <!-- step:{name} --> and <!-- /step -->")
        text = text[: place.start()] + make(report) + "\n" + text[place.end() :]
    path.write_text(text, encoding="utf-8")
