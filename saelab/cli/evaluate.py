"""`saelab evaluate`: runs → reports beside them, and a readable table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import App

from saelab.cli.arguments import Arguments, Word, parse
from saelab.cli.settings import epilogue
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.evaluation.config import EvaluateConfig
    from saelab.evaluation.reports import AnyReport
    from saelab.ranks import Ranks

Form = Literal["plain", "markdown", "csv"]
NAMES, NUMBER = 30, 24  # letters: what the first and the last column take, and a number with its interval

app = App(
    name="evaluate",
    usage="Usage: saelab evaluate RUN... [CONFIG.yaml] [--key value ...]",
    help_epilogue=epilogue(
        "evaluate",
        """  saelab evaluate runs/a
  saelab evaluate runs/a runs/b --tokens 1M     side by side, in one pass
  saelab evaluate runs/a --corpus.source demo   on text of your choice
  saelab evaluate runs/a --suite ioi            on the task of `saelab ioi`
  saelab evaluate runs/a --html a.html          a page with figures
  torchrun --nproc-per-node 4 -m saelab evaluate runs/a""",
        useful=("tokens", "corpus", "model", "dtype", "batch_rows", "resamples"),
    ),
)


@app.default
def evaluate(
    *words: Word,
    suite: list[str] | None = None,
    html: Path | None = None,
    table: Form = "plain",
    schema: str | None = None,
    together: bool = False,
    overwrite: bool = False,
) -> None:
    """Measure dictionaries on held-out text: what the reconstruction loses, and who fires how often.

    Parameters
    ----------
    suite
        One of `suites` (fidelity, sparsity, labels, …), or several if it is given again; ioi stands alone.
    html
        Write one page with tables, figures and definitions, which needs nothing else, to this file.
    table
        How numbers are printed: plain, markdown, or csv (a number a line, unrounded).
    schema
        Print the JSON Schema of this suite's report (or of ioi, compare, together) and measure nothing.
    together
        Substitute all runs, at different sites of one model, in the same pass: one report, in place of the suites.
    overwrite
        Replace reports that were made with other settings.
    """
    from saelab.ranks import joined

    with joined() as ranks:
        if schema is not None:
            say = partial(print, _schema(schema))
        else:
            asked = _Asked(parse(words, takes_runs=True), tuple(suite or ()), html, table, together, overwrite)
            say = asked.measure(ranks)
    if ranks.first:
        say()


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for. Its methods measure, and return what shows the findings."""

    arguments: Arguments
    suites: tuple[str, ...]
    html: Path | None
    table: Form
    together: bool
    overwrite: bool

    def measure(self, ranks: Ranks) -> Callable[[], None]:
        """The suites, or what stands in their place."""
        given = {"runs": list(self.arguments.runs) or None, "overwrite": self.overwrite or None}
        if "ioi" in self.suites:
            return self._judge(given, ranks)
        from saelab.evaluation.config import EvaluateConfig

        config = self.arguments.load(
            EvaluateConfig, suites=list(self.suites) or None, together=self.together or None, **given
        )
        return self._together(config, ranks) if config.together else self._apart(config, ranks)

    def _apart(self, config: EvaluateConfig, ranks: Ranks) -> Callable[[], None]:
        from saelab.evaluation.evaluate import evaluate as run

        reports = run(config, ranks=ranks)

        def say() -> None:
            show(reports, self.table)
            if self.html is not None:
                from saelab.evaluation import page, sections

                page.write(self.html, sections.title(reports), sections.parts(reports))
                print(f"the page is {self.html}", file=sys.stderr)

        return say

    def _together(self, config: EvaluateConfig, ranks: Ranks) -> Callable[[], None]:
        """Measure the set, and print its one table."""
        if self.suites:
            raise UserError("--together measures one thing of its own: leave --suite out")
        if self.table == "csv":
            raise UserError("--together prints plain or markdown; its numbers, unrounded, are in together.json")
        from saelab.evaluation.together.run import evaluate_together

        report = evaluate_together(config, ranks=ranks)

        def say() -> None:
            from saelab.evaluation.page import write
            from saelab.evaluation.printing import markdown, rich_table
            from saelab.evaluation.together.table import side_by_side

            grid = side_by_side(report)
            if self.table == "markdown":
                print(markdown(grid))
            else:
                from rich.console import Console

                Console().print(rich_table(grid))
            if self.html is not None:
                write(self.html, "Substituted together", [grid])
                print(f"the page is {self.html}", file=sys.stderr)

        return say

    def _judge(self, given: Mapping[str, Any], ranks: Ranks) -> Callable[[], None]:
        if len(self.suites) > 1:
            raise UserError("the suite ioi has settings of its own: run it without other suites")
        if self.html is not None:
            raise UserError("the suite ioi writes RUN/evaluation/ioi.html by itself: leave --html out")
        from saelab.evaluation.ioi.config import JudgeConfig

        config = self.arguments.load(JudgeConfig, **given)

        from saelab.evaluation.ioi.run import judge

        reports = judge(config, ranks=ranks)

        def say() -> None:
            from saelab.cli.ioi import show as show_ioi

            for report in reports:
                show_ioi(report)
            print(f"reports are in {config.runs[0]}/evaluation/ioi.html and beside the other runs")

        return say


def _schema(suite: str) -> str:
    """JSON Schema (2020-12) of a suite's report."""
    from saelab.evaluation.compare.report import json_schema as of_compare
    from saelab.evaluation.ioi.report import json_schema as of_ioi
    from saelab.evaluation.reports import REPORTS, json_schema
    from saelab.evaluation.together.report import json_schema as of_together

    schemas = {name: partial(json_schema, name) for name in REPORTS}
    makers = {**schemas, "ioi": of_ioi, "compare": of_compare, "together": of_together}
    if suite not in makers:
        raise UserError(f"there is no suite {suite!r}; there are {', '.join(makers)}")
    return json.dumps(makers[suite](), indent=2, ensure_ascii=False)


def show(reports: Sequence[AnyReport], form: Form = "plain") -> None:
    """Print a table for each suite, runs side by side; or, as csv, one for all."""
    from rich.console import Console

    from saelab.evaluation.printing import markdown, rich_table
    from saelab.evaluation.tables import as_csv, side_by_side

    if form == "csv":
        print(as_csv(reports), end="")
        return
    console = Console()
    abreast = len(reports) if form == "markdown" else max(2, (console.width - NAMES) // NUMBER)
    for suite in dict.fromkeys(report.suite for report in reports):
        of_suite = [report for report in reports if report.suite == suite]
        for first in range(0, len(of_suite), abreast):
            table = side_by_side(of_suite[first : first + abreast])
            if form == "markdown":
                print(markdown(table) + "\n")
            else:
                console.print(rich_table(table))
