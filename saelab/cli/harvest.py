"""`saelab harvest`: text → activations on disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.places import activations_folder
from saelab.cli.settings import epilogue
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.activations.config import HarvestConfig

app = App(
    name="harvest",
    usage="Usage: saelab harvest [CONFIG] [--out DIR] [--repair] [--dry-run] [--key value ...]",
    help_epilogue=epilogue(
        "harvest",
        """  saelab harvest --tokens 1M --out activations/demo
  saelab harvest --model gpt2 --sites "[blocks.*.resid_post]" --dry-run
  saelab harvest harvest.yaml --gradients --dtype fp32
  torchrun --nproc-per-node 4 -m saelab harvest harvest.yaml""",
        useful=("model", "sites", "gradients", "tokens", "dtype", "shard_tokens", "corpus.source", "policy.context"),
    ),
)


@app.default
def harvest(
    *words: Word, out: Path | None = None, overwrite: bool = False, repair: bool = False, dry_run: bool = False
) -> None:
    """Store a model's activations on disk.

    Parameters
    ----------
    out
        Directory of the activations; left out, a folder of artifacts/activations or saelab-activations.
    overwrite
        Start anew where activations with other settings exist.
    repair
        Check every file of --out, and make damaged shards again, with the settings that it was made with.
    dry_run
        Only say what it would take: tokens, disk, memory, time.
    """
    from saelab.ranks import joined

    with joined() as ranks:
        config, directory = _asked(words, out, overwrite, repair)
        if dry_run:
            if ranks.first:
                _show(config, directory)
            return
        from saelab.activations.harvest import harvest as run

        run(config, directory, overwrite, repair=repair, ranks=ranks, say=partial(print, flush=True))
    if ranks.first:
        from saelab.activations.manifest import Manifest

        site = next(iter(Manifest.load(directory).sites))  # settings may have patterns
        print(f"the activations are in {directory}; next: saelab train --activations {directory} --site {site}")


def _asked(words: Sequence[str], out: Path | None, overwrite: bool, repair: bool) -> tuple[HarvestConfig, Path]:
    """Settings and directory; a repair without settings has those of the directory."""
    from saelab.activations.config import HarvestConfig

    if repair and overwrite:
        raise UserError("--repair keeps what is there and --overwrite removes it; give one of them")
    if repair and not words:
        if out is None:
            raise UserError("--repair needs the directory to be repaired: saelab harvest --out DIR --repair")
        from saelab.activations.manifest import Manifest

        return Manifest.load(out).config, out
    arguments = parse(words)
    config = arguments.load(HarvestConfig)
    return config, out or activations_folder() / (arguments.file.stem if arguments.file else Path(config.model).name)


def _show(config: HarvestConfig, directory: Path) -> None:
    from saelab.activations.plan import plan

    print("\n".join([*plan(config, directory, measure=True).lines(), f"into    {directory} (nothing was written)"]))
