"""`saelab index`: a run → what every latent fires on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.settings import epilogue
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.features.config import IndexConfig

app = App(
    name="index",
    usage="Usage: saelab index RUN [CONFIG.yaml] [--key value ...]",
    help_epilogue=epilogue(
        "index",
        """  saelab index runs/a
  saelab index runs/a --tokens 10M --top_examples 50
  torchrun --nproc-per-node 4 -m saelab index runs/a""",
        useful=("tokens", "corpus", "out", "model", "dtype", "batch", "top_examples", "effect_tokens"),
    ),
)


@app.default
def index(*words: Word, overwrite: bool = False) -> None:
    """Find what every latent of a dictionary fires on: examples, statistics, promoted tokens.

    Parameters
    ----------
    overwrite
        Replace an index that was made with other settings.
    """
    from saelab.ranks import joined

    with joined() as ranks:
        config = _asked(words, overwrite)
        from saelab.features.build import build_index

        directory = build_index(config, ranks=ranks)
    if ranks.first:
        print(f"the feature index is in {directory}; next: saelab browse {config.run}")


def _asked(words: Sequence[str], overwrite: bool) -> IndexConfig:
    from saelab.features.config import IndexConfig

    arguments = parse(words, takes_runs=True)
    if len(arguments.runs) > 1:
        raise UserError(f"{arguments.runs[1]!r} is one word too many: `saelab index` takes one run at a time")
    run = arguments.runs[0] if arguments.runs else None
    return arguments.load(IndexConfig, run=run, overwrite=overwrite or None)
