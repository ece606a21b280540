"""`saelab ioi`: supervised dictionaries of a model on indirect object identification, and what they are judged by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.places import runs_folder
from saelab.cli.settings import epilogue
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.evaluation.ioi.report import IoiReport

app = App(
    name="ioi",
    usage="Usage: saelab ioi [MODEL] [CONFIG.yaml] [--out DIR] [--key value ...]",
    help_epilogue=epilogue(
        "ioi",
        """  saelab ioi demo                               supervised dictionaries alone
  saelab ioi demo --train topk,gated            and task SAEs
  saelab ioi gpt2 --out runs/ioi-gpt2           our numbers beside the paper's
  saelab evaluate RUN... --suite ioi            the tests on finished dictionaries""",
        useful=("train", "names", "fit_prompts", "test_prompts", "patched_prompts", "circuit", "seed"),
    ),
)


@app.default
def ioi(*words: Word, out: Path | None = None, overwrite: bool = False) -> None:
    """Judge dictionaries against supervised ones on the task whose answer is known (arXiv 2405.08366).

    Parameters
    ----------
    out
        Directory of the report, and of the dictionaries as runs; left out, ioi-MODEL among the runs.
    overwrite
        Replace a report that was made with other settings.
    """
    from saelab.evaluation.ioi.config import IoiConfig

    arguments = parse(words, takes_runs=True)
    if len(arguments.runs) > 1:
        raise UserError(f"{arguments.runs[1]!r} is one word too many: give one model, and settings as --key value")
    model = arguments.runs[0] if arguments.runs else None
    config = arguments.load(IoiConfig, model=model, overwrite=overwrite or None)

    from saelab.evaluation.ioi.run import ioi as run

    directory = out or runs_folder() / f"ioi-{Path(config.model).name}"
    show(run(config, directory))
    print(f"the report is {directory / 'ioi.html'}; next: saelab browse {directory}")


def show(report: IoiReport) -> None:
    """Print the report's tables."""
    from rich.console import Console

    from saelab.evaluation.ioi.tables import tables

    console = Console()
    for table in tables(report):
        console.print(table)
