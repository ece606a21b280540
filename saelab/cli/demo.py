"""`saelab demo`: the whole road on the bundled model, stage by stage, then the app."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from saelab.cli.arguments import Word, parse
from saelab.cli.places import runs_folder
from saelab.disk import bundled
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.evaluation.reports import AnyReport

CONFIG = "configs/demo.yaml"
EFFECT_TOKENS = "30k"  # the default would take as long as all the rest of the index

app = App(
    name="demo",
    usage="Usage: saelab demo [--out DIR] [--no-browse] [--key value ...]",
    help_epilogue=f"""Examples:
  saelab demo
  saelab demo --no-browse                    only make the run
  saelab demo --out runs/k32 --sae.k 32      with settings of `saelab train`

Run again, it keeps what is finished and opens the app at once. Its settings
are in {CONFIG}; every stage is announced by the command that does the
same by hand.""",
)


@app.default
def demo(
    *words: Word,
    out: Path | None = None,
    browse: Annotated[bool, Parameter(name="--browse", negative="--no-browse")] = True,
    evaluate_tokens: str = "30k",
    index_tokens: str = "200k",
    overwrite: bool = False,
) -> None:
    """Train, evaluate, index and browse a dictionary of the bundled model.

    Parameters
    ----------
    out
        Run directory; left out, artifacts/runs/demo in a checkout, saelab-runs/demo elsewhere.
    browse
        Open the app at the end.
    evaluate_tokens
        Tokens of held-out text to evaluate on.
    index_tokens
        Tokens to look for examples in.
    overwrite
        Start anew.
    """
    began = time.monotonic()
    if not bundled("artifacts/demo-model").is_dir():
        raise UserError(f"the demo model is missing from {bundled('artifacts')}; this copy of saelab is not complete")
    arguments = parse([str(bundled(CONFIG)), *words])
    directory = out or runs_folder() / "demo"
    settings = " ".join(f"--{key} {value}" for key, value in arguments.settings.items())

    from saelab.evaluation.config import EvaluateConfig
    from saelab.features.config import IndexConfig
    from saelab.training.config import TrainConfig

    train_config = arguments.load(TrainConfig)
    evaluate_config = parse([]).load(EvaluateConfig, runs=[directory], tokens=evaluate_tokens)
    index_config = parse([]).load(IndexConfig, run=directory, tokens=index_tokens, effect_tokens=EFFECT_TOKENS)

    stages = 4 if browse else 3
    _say(1, stages, f"saelab train {CONFIG} --out {directory} {settings}")
    from saelab.training import train

    train(train_config, directory, overwrite=overwrite)
    _say(2, stages, f"saelab evaluate {directory} --tokens {evaluate_tokens}")
    from saelab.evaluation.evaluate import evaluate

    print(_summary(evaluate(evaluate_config)), file=sys.stderr)
    _say(3, stages, f"saelab index {directory} --tokens {index_tokens} --effect_tokens {EFFECT_TOKENS}")
    from saelab.features.build import build_index

    build_index(index_config)
    print(f"ready in {_duration(time.monotonic() - began)}: {directory}", file=sys.stderr)
    if browse:
        _say(4, stages, f"saelab browse {directory}")
        from saelab.cli.browse import open_app

        open_app([directory])


def _say(number: int, stages: int, command: str) -> None:
    print(f"\n[{number}/{stages}] {command.rstrip()}", file=sys.stderr, flush=True)


def _summary(reports: list[AnyReport]) -> str:
    """The four numbers that a newcomer asks for."""
    report = next(report for report in reports if report.suite == "fidelity")
    metrics = report.metrics
    recovered = f"loss recovered {metrics.loss_recovered_zero:.1%} (zero ablation)"
    silent = f"{metrics.dead_fraction:.1%} of latents silent on these {report.about.tokens:,} held-out tokens"
    return f"L0 {metrics.l0:.1f} · FVU {metrics.fvu:.3f} · {recovered} · {silent}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
