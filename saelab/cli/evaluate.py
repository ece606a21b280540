"""`saelab evaluate`: runs → reports beside them, and a readable table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cyclopts import App

from saelab.cli.arguments import Arguments, Word, parse
from saelab.cli.settings import epilogue
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.evaluation.reports import AnyReport

app = App(
    name="evaluate",
    usage="Usage: saelab evaluate RUN... [CONFIG.yaml] [--key value ...]",
    help_epilogue=epilogue(
        "evaluate",
        """  saelab evaluate runs/a
  saelab evaluate runs/a runs/b --tokens 1M     side by side, in one pass
  saelab evaluate runs/a --corpus.source demo   on text of your choice
  saelab evaluate runs/a --suite ioi            on the task that `saelab ioi` is about""",
    ),
)


@app.default
def evaluate(*words: Word, suite: list[str] | None = None, overwrite: bool = False) -> None:
    """Measure dictionaries on held-out text: what the reconstruction loses, and who fires how often.

    Parameters
    ----------
    suite
        One of `suites`, or several if it is given again; ioi stands alone, with the settings of `saelab ioi`.
    overwrite
        Replace reports that were made with other settings.
    """
    arguments = parse(words, takes_runs=True)
    given = {"runs": list(arguments.runs) or None, "overwrite": overwrite or None}
    if suite and "ioi" in suite:
        if len(suite) > 1:
            raise UserError("the suite ioi has settings of its own: run it without other suites")
        _judge(arguments, given)
        return
    from saelab.evaluation.config import EvaluateConfig

    config = arguments.load(EvaluateConfig, suites=suite, **given)

    from saelab.evaluation.evaluate import evaluate as run

    show(run(config))


def _judge(arguments: Arguments, given: Mapping[str, Any]) -> None:
    from saelab.evaluation.ioi.config import JudgeConfig

    config = arguments.load(JudgeConfig, **given)

    from saelab.cli.ioi import show as show_ioi
    from saelab.evaluation.ioi.run import judge

    for report in judge(config):
        show_ioi(report)
    print(f"reports are in {config.runs[0]}/evaluation/ioi.html and beside the other runs")


def show(reports: Sequence[AnyReport]) -> None:
    """Print a table for each suite, runs side by side."""
    from rich.console import Console

    from saelab.evaluation.tables import table

    console = Console()
    for suite in dict.fromkeys(report.suite for report in reports):
        console.print(table([report for report in reports if report.suite == suite]))
