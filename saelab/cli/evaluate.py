"""`saelab evaluate`: runs → reports beside them, and a readable table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.settings import epilogue

if TYPE_CHECKING:
    from saelab.evaluation.report import AnyReport

app = App(
    name="evaluate",
    usage="Usage: saelab evaluate RUN... [CONFIG.yaml] [--key value ...]",
    help_epilogue=epilogue(
        "evaluate",
        """  saelab evaluate runs/a
  saelab evaluate runs/a runs/b --tokens 1M     side by side, in one pass
  saelab evaluate runs/a --corpus.source demo   on text of your choice""",
    ),
)


@app.default
def evaluate(*words: Word, overwrite: bool = False) -> None:
    """Measure dictionaries on held-out text: what the reconstruction loses, and who fires how often.

    Parameters
    ----------
    overwrite
        Replace reports that were made with other settings.
    """
    from saelab.evaluation.config import EvaluateConfig

    arguments = parse(words, takes_runs=True)
    config = arguments.load(EvaluateConfig, runs=list(arguments.runs) or None, overwrite=overwrite or None)

    from saelab.evaluation.evaluate import evaluate as run

    show(run(config))


def show(reports: Sequence[AnyReport]) -> None:
    """Print a table for each suite, runs side by side."""
    from rich.console import Console

    from saelab.evaluation.tables import table

    console = Console()
    for suite in dict.fromkeys(report.suite for report in reports):
        console.print(table([report for report in reports if report.suite == suite]))
