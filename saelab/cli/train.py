"""`saelab train`: activations → dictionary."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.places import run_directory
from saelab.cli.settings import epilogue

app = App(
    name="train",
    usage="Usage: saelab train [CONFIG] [--out DIR] [--key value ...]",
    help_epilogue=epilogue(
        "train",
        """  saelab train configs/demo.yaml --out runs/a
  saelab train --model gpt2 --site blocks.6.resid_post --sae.d_sae 16k
  saelab train configs/demo.yaml --sae.preset mutual-choice --sae.k 64""",
        useful=("model", "site", "activations", "tokens", "sae.preset", "sae.d_sae", "sae.k", "optimizer.lr"),
    ),
)


@app.default
def train(*words: Word, out: Path | None = None, overwrite: bool = False, dry_run: bool = False) -> None:
    """Train a dictionary. The same command run again continues where it stopped.

    Parameters
    ----------
    out
        Run directory; left out, a folder of artifacts/runs or saelab-runs.
    overwrite
        Start anew where a run with other settings exists.
    dry_run
        Only say what it would take: tokens, disk, memory, time.
    """
    from saelab.training.config import TrainConfig

    arguments = parse(words)
    config = arguments.load(TrainConfig)
    directory = out or run_directory(arguments, config.sae.architecture)

    if dry_run:
        from saelab.training.plan import plan

        print("\n".join([*plan(config, directory).lines(), f"into    {directory} (nothing was written)"]))
        return
    from saelab.training import train as run

    run(config, directory, overwrite=overwrite)
    print(f"the dictionary is in {directory}; next: saelab evaluate {directory}, saelab index {directory}")
