"""How fast is a training step? Ours by every allocation, other tools', and the encoder product that all must do.

    make peers                                              # once: .venv-peers, with the other tools
    .venv-peers/bin/python benchmarks/step.py               # all sizes: tables, benchmarks/results/step.json
    .venv-peers/bin/python benchmarks/step.py --memory      # our peak memory (peers' is in the first), same file
    python benchmarks/step.py --docs docs/performance.md    # nothing is run: the document's tables, from that file
    python benchmarks/step.py --sizes 6144,32,4096 --cases topk --profile       # where a step's time goes

One of our steps is `Trainer.step`: everything that `saelab train` does per batch but reading it. Another tool's is its
own code with its own defaults on the same float32 activations (768 wide, of a known sparse dictionary); "same settings"
gives it what our process has: oneDNN for products, freed memory that stays. The floor is `x @ W_encᵀ + b_enc` into
memory that is kept. Cases take turns in processes of their own (ours share one), so that a shared machine slows all of
them alike: read the ratios. Where a tool is not installed its cases are left out. All three sizes take 12 minutes on
two quiet cores and, since every case keeps its weights and moments meanwhile, 20 GB; fewer --cases need less.
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.steps.cases import OURS, PEERS, all_cases, default_cases, is_installed  # noqa: E402
from benchmarks.steps.report import rewrite, table  # noqa: E402
from benchmarks.steps.rounds import measure, peaks  # noqa: E402
from benchmarks.steps.size import Size  # noqa: E402
from saelab.disk import read_json, write_json  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "step.json"
SIZES = {
    "cpu": "24576,32,4096 24576,64,2048 6144,32,4096",
    "cuda": "24576,32,4096 65536,32,8192 131072,64,8192 24576,32,4096,2304 65536,32,8192,2304 131072,64,8192,2304",
}
DISTRIBUTIONS = ("torch", "eai-sparsify", "dictionary-learning", "sae-lens")


def machine() -> str:
    """The processor's name and how many there are."""
    import psutil

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor() or platform.machine()}, {psutil.cpu_count()} processors"


def versions() -> dict[str, str]:
    """Of what is compared."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The earlier report with every size replaced that was measured now, but for memory: that does not get old."""
    sizes = dict(before.get("sizes", {}))
    for size, run in now["sizes"].items():
        for name, row in sizes.get(size, {}).get("cases", {}).items():
            if "peak_mb" in row and name in run["cases"]:
                run["cases"][name].setdefault("peak_mb", row["peak_mb"])
        sizes[size] = run
    return {**now, "sizes": sizes}


def lost(before: dict[str, Any], size: str, run: dict[str, Any]) -> list[str]:
    """What the earlier report compares at this size and this run did not measure: it would be gone."""
    return [case for case in before.get("sizes", {}).get(size, {}).get("cases", {}) if case not in run["cases"]]


def arguments() -> argparse.Namespace:
    """What was asked for; `cases` and `sizes` are filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=tuple(SIZES), default="cpu")
    parser.add_argument("--sizes", nargs="+", metavar="D_SAE,K,BATCH[,D_IN]")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="instead of all of ours and the installed peers")
    parser.add_argument("--repeats", type=int, default=4, help="rounds in which every case has a turn")
    parser.add_argument("--profile", action="store_true", help="print where our steps' time goes")
    parser.add_argument(
        "--memory", action="store_true", help="measure no times, but the peak memory of ours, one by one"
    )
    parser.add_argument("--json", type=Path, help="where results are merged; left out with --cases, nothing is written")
    parser.add_argument("--docs", type=Path, help="measure nothing; rewrite this document's tables")
    given = parser.parse_args()
    known = all_cases(given.device)
    if unknown := [case for case in given.cases or () if case not in known]:
        parser.error(f"unknown {', '.join(unknown)}; cases are: {'; '.join(known)}")
    if missing := [case for case in given.cases or () if case in PEERS and not is_installed(case)]:
        parser.error(f"not installed here: {', '.join(missing)}; make peers makes an environment that has all tools")
    given.json = given.json or (None if given.cases else RESULTS)
    given.cases = given.cases or [c for c in default_cases(given.device) if c in OURS or not given.memory]
    given.sizes = [Size.read(text) for text in given.sizes or SIZES[given.device].split()]
    return given


def with_times(report: dict[str, Any], size: Size, given: argparse.Namespace) -> dict[str, Any]:
    """The report and the times of one size, which are printed too; the report as it is where it would lose cases."""
    run = measure(size, given.cases, given.device, given.repeats, given.profile)
    print(table(str(size), run), flush=True)
    if given.json == RESULTS and (cases := lost(report, str(size), run)):
        print(f"not written, since {RESULTS.name} has more: {', '.join(cases)}; --json takes another file")
        return report
    return merged(report, {"machine": machine(), "versions": versions(), "sizes": {str(size): run}})


def with_memory(report: dict[str, Any], size: Size, given: argparse.Namespace) -> dict[str, Any]:
    """The report and the peaks of one size, for those cases whose times it has."""
    rows = report.get("sizes", {}).get(str(size), {}).get("cases", {})
    for case, peak in peaks(size, given.cases, given.device).items():
        print(f"({size}) {case:36}{peak:9.0f} MB", flush=True)
        rows.get(case, {})["peak_mb"] = peak
    return report


def main() -> None:
    given = arguments()
    report = read_json(given.json) if given.json and given.json.exists() else {}
    if given.docs:
        rewrite(given.docs, report)
        return
    for size in given.sizes:
        report = (with_memory if given.memory else with_times)(report, size, given)
        if given.json:
            write_json(given.json, report)


if __name__ == "__main__":
    main()
