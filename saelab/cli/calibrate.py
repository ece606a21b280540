"""`saelab calibrate`: does a dictionary keep the budget it was trained for, and thresholds that make it so."""

from __future__ import annotations

from cyclopts import App

from saelab.cli.arguments import Word, parse
from saelab.cli.settings import epilogue
from saelab.errors import UserError

app = App(
    name="calibrate",
    usage="Usage: saelab calibrate RUN [--write | --restore] [--key value ...]",
    help_epilogue=epilogue(
        "calibrate",
        """  saelab calibrate runs/a                   what would change
  saelab calibrate runs/a --write           and change it
  saelab calibrate runs/a --restore         the thresholds of training again""",
    ),
)


@app.default
def calibrate(*words: Word, write: bool = False, restore: bool = False) -> None:
    """Estimate a finished dictionary's thresholds anew, and count active latents on tokens kept apart.

    Parameters
    ----------
    write
        Put the new thresholds into the dictionary; those of training are kept.
    restore
        Put the thresholds of training back.
    """
    from saelab.evaluation.config import CalibrateConfig

    arguments = parse(words, takes_runs=True)
    if len(arguments.runs) > 1:
        raise UserError(f"{arguments.runs[1]!r} is one word too many: `saelab calibrate` takes one run at a time")
    config = arguments.load(CalibrateConfig, run=arguments.runs[0] if arguments.runs else None)
    if write and restore:
        raise UserError("--write and --restore exclude each other; give one of them")

    from saelab.evaluation import calibrate as stage

    again = f"reports and index were made with the others: saelab evaluate {config.run} --overwrite, and index likewise"
    if restore:
        stage.restore(config.run)
        print(f"{config.run} has the thresholds of its training again; {again}")
        return
    found = stage.calibrate(config)
    k = found.dictionary.config.k
    print(
        f"active latents per token, where k = {k}: {found.before:.2f} before ({found.before / k - 1:+.1%}), "
        f"{found.after:.2f} after ({found.after / k - 1:+.1%}); estimated on {found.tokens:,} tokens, "
        f"counted on {found.checked:,} others"
    )
    if write:
        stage.write(config.run, found.dictionary)
        print(f"{config.run} has new thresholds; {again}")
    else:
        print("nothing was written; --write puts the new thresholds into the dictionary")
