"""Every architecture × auxiliary loss on the bundled model, at equal tokens, size and mean L0; the papers' claims.

    OMP_NUM_THREADS=1 python benchmarks/architectures.py --dry-run     # what it will take
    OMP_NUM_THREADS=1 python benchmarks/architectures.py               # the grid, its tables and the claims
    OMP_NUM_THREADS=1 python benchmarks/architectures.py --readings    # what the papers leave open, each way

One harvest (with gradients) of the residual stream, one pass over it that trains all dictionaries of all seeds on the
same batches, one pass over held-out text that evaluates them. A seed decides a dictionary's first weights; the order
of the tokens is the same for all. Dead: silent for `--dead-after` of the tokens of training, at its end; silent: on the
held-out text. The learning rate is chosen so that some latents die without an auxiliary loss: else there is nothing to
compare there.

Everything lies in the folder --work; the same command again continues where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.cells import Cell, grid, readings  # noqa: E402
from benchmarks.claims import Record, claims, table  # noqa: E402
from benchmarks.tables import Column, markdown, paired, spread  # noqa: E402
from saelab.activations.config import HarvestConfig  # noqa: E402
from saelab.activations.harvest import harvest  # noqa: E402
from saelab.config import load_config  # noqa: E402
from saelab.disk import RunPaths, read_jsonl, write_json  # noqa: E402
from saelab.evaluation.config import EvaluateConfig  # noqa: E402
from saelab.evaluation.evaluate import evaluate  # noqa: E402
from saelab.evaluation.reports import AnyReport  # noqa: E402
from saelab.training import train_all  # noqa: E402
from saelab.training.config import TrainConfig  # noqa: E402
from saelab.training.plan import plan  # noqa: E402

SITE = "blocks.2.resid_post"
FRESH = 1.05  # harvested beyond what is trained on, so that thresholds are checked on tokens of their own
FEW_TOKENS = 2048  # whose evaluation is timed in a dry run
COLUMNS = (
    Column("FVU", "fvu", 4), Column("ΔCE", "delta_ce", 4), Column("recovered (zero) %", "loss_recovered_zero", 2, 100),
    Column("recovered (mean) %", "loss_recovered_mean", 2, 100), Column("KL", "kl", 4), Column("L0", "l0", 2),
    Column("dead", "dead_in_training", 0), Column("silent", "dead", 0), Column("underused", "underused", 0),
)  # fmt: skip


def configs(arguments: argparse.Namespace, cells: Sequence[Cell], activations: Path) -> dict[Path, TrainConfig]:
    """Settings of every run by its directory."""
    shared = {
        "activations": str(activations), "site": SITE, "sae.d_sae": arguments.d_sae, "sae.k": arguments.k,
        "sae.dead_after": round(arguments.dead_after * arguments.tokens), "tokens": arguments.tokens,
        "batch": arguments.batch, "buffer": max(arguments.batch, 131_072), "optimizer.lr": arguments.lr,
        "checkpoint_every": arguments.tokens // 3, "shuffle_seed": 0, "device": "cpu",
    }  # fmt: skip
    return {
        _directory(arguments, cell, seed): load_config(TrainConfig, None, {**shared, **cell.overrides, "seed": seed})
        for cell in cells
        for seed in range(arguments.seeds)
    }


def records(arguments: argparse.Namespace, cells: Sequence[Cell]) -> list[Record]:
    """Evaluate all runs and lay their numbers side by side."""
    runs = [(cell, seed, _directory(arguments, cell, seed)) for cell in cells for seed in range(arguments.seeds)]
    directories = [run for *_, run in runs]
    fidelity = evaluate(_evaluate(directories, "fidelity", arguments.fidelity_tokens))
    sparsity = evaluate(_evaluate(directories, "sparsity", arguments.sparsity_tokens))
    return [
        {
            "architecture": cell.architecture, "aux": cell.aux, "reading": cell.reading, "seed": seed,
            "dead_in_training": read_jsonl(RunPaths(run).metrics)[-1]["dead"],
            **_numbers(faithful, ("fvu", "delta_ce", "loss_recovered_zero", "loss_recovered_mean", "kl", "l0")),
            **_numbers(sparse, ("dead", "underused")),
        }
        for (cell, seed, run), faithful, sparse in zip(runs, fidelity, sparsity, strict=True)
    ]  # fmt: skip


def _numbers(report: AnyReport, names: Sequence[str]) -> dict[str, Any]:
    numbers = report.metrics.model_dump(mode="json")
    return {name: numbers[name] for name in names}


def grid_table(found: Sequence[Record]) -> str:
    """A row for each cell: mean ± standard deviation over seeds."""
    rows = [[cell.architecture, cell.aux, *_cells(of)] for cell in grid() if (of := [r for r in found if _is(r, cell)])]
    return markdown(["architecture", "aux", *(column.title for column in COLUMNS)], rows)


def readings_table(found: Sequence[Record]) -> str:
    """Each default and, below it, other readings with their difference from it seed by seed; * = its interval excludes
    0."""
    rows: list[list[str]] = []
    for cell in readings():
        ours = {(r["seed"],): r for r in found if _is(r, cell)}
        theirs = {(r["seed"],): r for r in found if _is(r, Cell(cell.architecture, cell.aux))}
        title = f"{cell.architecture} {cell.aux}"
        if theirs and not any(row[0] == title for row in rows):
            rows.append([title, *_cells(list(theirs.values()))])
        if ours:
            rows.append([f"  {cell.reading}", *_cells(list(ours.values()))])
            rows.append(["    difference", *(_difference(ours, theirs, column) for column in COLUMNS)])
    return markdown(["reading", *(column.title for column in COLUMNS)], rows)


def _cells(found: Sequence[Record]) -> list[str]:
    return [spread([record[c.name] for record in found], c.digits, c.factor) for c in COLUMNS]


def _difference(ours: dict[tuple, Record], theirs: dict[tuple, Record], column: Column) -> str:
    numbers = ({key: record[column.name] for key, record in of.items()} for of in (ours, theirs))
    difference = paired(*numbers)
    if difference is None:
        return "–"
    mark = "*" if difference.verdict() in ("holds", "does not hold") else ""
    return f"{difference.mean * column.factor:+.{column.digits}f}{mark}"


def dry_run(arguments: argparse.Namespace, cells: Sequence[Cell]) -> None:
    """Time all parts on small samples; nothing is left behind."""
    with TemporaryDirectory() as folder:
        started, few = time.process_time(), 8 * arguments.batch
        activations = harvest(_harvest(few), Path(folder) / "activations")
        harvesting = (time.process_time() - started) * FRESH * arguments.tokens / few
        runs = configs(arguments, cells, activations)
        planned = plan(runs)
        print("\n".join(planned.lines()))
        evaluating = _evaluation_seconds(arguments, runs, Path(folder))
    each = {
        cell.name: 1e3 * next(r.seconds / r.steps for r in planned.runs if r.name == f"{cell.name}-s0")
        for cell in cells
    }
    print(markdown(["", "ms a step"], [[name, f"{ms:.0f}"] for name, ms in each.items()]))
    print(
        f"harvest {harvesting / 60:.0f} min + training {planned.seconds / 60:.0f} min + evaluation "
        f"{evaluating / 60:.0f} min; training by the clock, so too much on a busy machine (nothing was written)"
    )


def _evaluation_seconds(arguments: argparse.Namespace, runs: dict[Path, TrainConfig], folder: Path) -> float:
    """Of all runs, as a dictionary without and one with a gradient (which is evaluated both ways) took."""
    samples = {
        folder / directory.name: config.model_copy(update={"tokens": 2 * arguments.batch})
        for directory, config in runs.items()
        if directory.name in ("topk-none-s0", "gradient-none-s0")
    }
    train_all(samples)
    seconds = 0.0
    for directory in samples:
        started = time.process_time()
        evaluate(_evaluate([directory], "fidelity", FEW_TOKENS))
        alike = sum(("gradient" in run.name) == ("gradient" in directory.name) for run in runs)
        seconds += (time.process_time() - started) * arguments.fidelity_tokens / FEW_TOKENS * alike
    return seconds


def _harvest(tokens: int) -> HarvestConfig:
    return HarvestConfig(sites=(SITE,), gradients=True, tokens=tokens, device="cpu")


def _evaluate(runs: Sequence[Path], suite: str, tokens: int) -> EvaluateConfig:
    return EvaluateConfig.model_validate(
        {"runs": runs, "suites": [suite], "tokens": tokens, "mean_tokens": min(10_000, tokens), "device": "cpu"}
    )


def _directory(arguments: argparse.Namespace, cell: Cell, seed: int) -> Path:
    return arguments.work / "runs" / f"{cell.name}-s{seed}"


def _is(record: Record, cell: Cell) -> bool:
    return (record["architecture"], record["aux"], record["reading"]) == (cell.architecture, cell.aux, cell.reading)


def _chosen(arguments: argparse.Namespace) -> list[Cell]:
    """Cells to make: the grid, or the other readings and what they are held against."""
    cells = grid()
    if arguments.readings:
        others = readings()
        against = {(cell.architecture, cell.aux) for cell in others}
        cells = [cell for cell in cells if (cell.architecture, cell.aux) in against] + others
    return [cell for cell in cells if not arguments.only or cell.architecture in arguments.only.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", action="store_true", help="the alternatives instead of the grid")
    parser.add_argument("--dry-run", action="store_true", help="only say what it takes")
    parser.add_argument("--only", help="these architectures, with commas between them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--d-sae", type=int, default=2048)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=600_000, help="of each training")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--dead-after", type=float, default=0.1, help="as a share of the tokens of training")
    parser.add_argument("--fidelity-tokens", type=int, default=50_000, help="held-out, through the model each time")
    parser.add_argument("--sparsity-tokens", type=int, default=50_000, help="held-out, through the model once")
    parser.add_argument("--work", type=Path, default=ROOT / "build/benchmarks/architectures", help="scratch folder")
    parser.add_argument("--json", type=Path, help="write settings and records to this file")
    arguments = parser.parse_args()
    cells = _chosen(arguments)
    if arguments.dry_run:
        dry_run(arguments, cells)
        return
    activations = harvest(_harvest(round(FRESH * arguments.tokens)), arguments.work / "activations")
    train_all(configs(arguments, cells, activations))
    found = records(arguments, cells)
    print(readings_table(found) if arguments.readings else f"{grid_table(found)}\n\n{table(claims(found))}")
    if arguments.json:
        kept = (
        "seeds", "d_sae", "k", "tokens", "batch", "lr", "dead_after", "fidelity_tokens", "sparsity_tokens",
    )  # fmt: skip
        write_json(arguments.json, {"settings": {name: vars(arguments)[name] for name in kept}, "records": found})


if __name__ == "__main__":
    main()
