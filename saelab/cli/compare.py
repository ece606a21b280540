"""`saelab compare`: finished reports of runs → tables of their differences, and one page."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.settings import epilogue

app = App(
    name="compare",
    usage="Usage: saelab compare RUN RUN... [--html FILE] [--json FILE] [--key value ...]",
    help_epilogue=epilogue(
        "compare",
        """  saelab compare runs/a runs/b                  b minus a, paired over documents
  saelab compare runs/grid/* --html grid.html   and a page with curves and definitions
  saelab compare runs/* --evaluate              measure first what is missing""",
    ),
)


@app.default
def compare(*words: Word, html: Path | None = None, json: Path | None = None, evaluate: bool = False) -> None:
    """Hold finished runs against each other: paired differences, matched L0, stability.

    Parameters
    ----------
    html
        Write one page, which needs nothing else, to this file.
    json
        Write the report to this file; `saelab evaluate --schema compare` prints its schema.
    evaluate
        First make the reports that are missing, in one pass, with the settings of those that are there.
    """
    arguments = parse(words, takes_runs=True)
    from saelab.evaluation.compare.config import CompareConfig

    config = arguments.load(CompareConfig, runs=list(arguments.runs) or None)

    from rich.console import Console

    from saelab.evaluation import page
    from saelab.evaluation.compare.compare import compare as run
    from saelab.evaluation.compare.complete import complete
    from saelab.evaluation.compare.sections import parts, title
    from saelab.evaluation.compare.tables import tables
    from saelab.evaluation.printing import rich_table

    if evaluate:
        complete(config.runs)
    comparison = run(config)
    console = Console()
    for table in tables(*comparison):
        console.print(rich_table(table))
    for sentence in (*comparison.report.warnings, *comparison.report.unmatched):
        console.print(sentence, style="yellow", markup=False, highlight=False)
    for line in comparison.report.missing:
        console.print(f"not measured: {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
    if json is not None:
        comparison.report.save(json)
    if html is not None:
        page.write(html, title(comparison.report), parts(comparison))
        console.print(f"the page is {html}", markup=False, highlight=False)
