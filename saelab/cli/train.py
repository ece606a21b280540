"""`saelab train`: activations → dictionary, or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.places import run_directory
from saelab.cli.settings import epilogue
from saelab.disk import RunPaths, require_free_space
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.training.config import TrainConfig
    from saelab.training.parallel import ParallelConfig
    from saelab.training.plan import TrainPlan

app = App(
    name="train",
    usage="Usage: saelab train [CONFIG] [--out DIR] [--key value ...]",
    help_epilogue=epilogue(
        "train",
        """  saelab train configs/demo.yaml --out runs/a
  saelab train --model gpt2 --site blocks.6.resid_post --sae.d_sae 16k
  saelab train configs/demo.yaml --sae.preset topk,gradient --sae.k 16,32
                     four at once, on one pass: OUT/topk-k16, OUT/topk-k32, …
  torchrun --nproc-per-node 4 -m saelab train big.yaml --parallel.latent 4""",
        useful=("model", "site", "activations", "tokens", "sae.preset", "sae.d_sae", "sae.k", "optimizer.lr"),
    ),
)


@app.default
def train(
    *words: Word,
    out: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    together: int | None = None,
    profile: bool = False,
) -> None:
    """Train a dictionary, or one for every combination of settings that are lists.

    Parameters
    ----------
    out
        Run directory, or folder of several.
    overwrite
        Start anew where a run with other settings exists.
    dry_run
        Only say what it would take: tokens, disk, memory, time.
    together
        The most runs that share a pass, and memory; left out, all.
    profile
        Say at the end where the time of a step went.
    """
    if together is not None and together < 1:
        raise UserError(f"--together {together} leaves no run to train; give 1 or more")

    from saelab.ranks import joined

    with joined() as ranks:
        asked = _asked(words, out)
        if dry_run:
            if ranks.first:
                from saelab.training.plan import plan

                show(plan(asked.configs, together, ranks, asked.parallel), asked.directory)
            return
        from saelab.training import train_all

        train_all(asked.configs, overwrite, together, profile, ranks=ranks, parallel=asked.parallel)
        if ranks.first:
            print(_next(asked))


class Asked(NamedTuple):
    """What the words behind the command say."""

    configs: dict[Path, TrainConfig]
    """Of each run's directory."""
    parallel: ParallelConfig
    directory: Path
    """Of the run, or of all of them."""
    is_sweep: bool


def _asked(words: Sequence[str], out: Path | None) -> Asked:
    from saelab.config import build, said_in
    from saelab.training.config import TrainConfig
    from saelab.training.grid import expand
    from saelab.training.parallel import ParallelConfig

    arguments = parse(words)
    values, where = arguments.values(), said_in(arguments.file)
    parallel = build(ParallelConfig, values.pop("parallel", None) or {}, f"{where}: parallel")
    points = expand(TrainConfig, values, where)
    is_sweep = bool(points[0].name)
    directory = out or run_directory(arguments, "sweep" if is_sweep else points[0].config.sae.architecture)
    if is_sweep and RunPaths(directory).config.exists():
        raise UserError(f"{directory} is a run itself, so it can't hold several; give another --out")
    return Asked({directory / point.name: point.config for point in points}, parallel, directory, is_sweep)


def _next(asked: Asked) -> str:
    directory = asked.directory
    if asked.is_sweep:
        return f"{len(asked.configs)} dictionaries are in {directory}; next: saelab evaluate {directory}/*"
    return f"the dictionary is in {directory}; next: saelab evaluate {directory}, saelab index {directory}"


def show(planned: TrainPlan, directory: Path) -> None:
    """Print a plan, and refuse what does not fit on the disk."""
    from saelab.training.plan import table

    if len(planned.runs) > 1:
        from rich.console import Console

        Console().print(table(planned))
    print("\n".join([*planned.lines(), f"into    {directory} (nothing was written)"]))
    require_free_space(directory, planned.disk_bytes, "this training")
