"""`saelab harvest`: text → activations on disk."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.places import activations_folder
from saelab.cli.settings import epilogue

app = App(
    name="harvest",
    usage="Usage: saelab harvest [CONFIG] [--out DIR] [--dry-run] [--key value ...]",
    help_epilogue=epilogue(
        "harvest",
        """  saelab harvest --tokens 1M --out activations/demo
  saelab harvest --model gpt2 --sites "[blocks.*.resid_post]" --dry-run
  saelab harvest harvest.yaml --gradients --dtype fp32""",
        useful=("model", "sites", "gradients", "tokens", "dtype", "shard_tokens", "corpus.source", "policy.context"),
    ),
)


@app.default
def harvest(*words: Word, out: Path | None = None, overwrite: bool = False, dry_run: bool = False) -> None:
    """Store a model's activations on disk.

    Parameters
    ----------
    out
        Directory of the activations; left out, a folder of artifacts/activations or saelab-activations.
    overwrite
        Start anew where activations with other settings exist.
    dry_run
        Only say what it would take: tokens, disk, memory, time.
    """
    from saelab.activations.config import HarvestConfig

    arguments = parse(words)
    config = arguments.load(HarvestConfig)
    directory = out or activations_folder() / (arguments.file.stem if arguments.file else Path(config.model).name)
    if dry_run:
        from saelab.activations.plan import plan

        print("\n".join([*plan(config, directory, measure=True).lines(), f"into    {directory} (nothing was written)"]))
        return
    from saelab.activations.harvest import harvest as run

    run(config, directory, overwrite=overwrite)
    print(f"the activations are in {directory}; next: saelab train --activations {directory} --site {config.sites[0]}")
