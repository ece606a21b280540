"""`saelab evaluate RUN RUN --together`: runs in, one report out, in the folder of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saelab.config import differences
from saelab.errors import UserError
from saelab.evaluation.config import EvaluateConfig
from saelab.evaluation.evaluate import Given, facts, given, opened
from saelab.evaluation.report import load_report
from saelab.evaluation.together.chain import check_apart
from saelab.evaluation.together.measure import measure_together
from saelab.evaluation.together.report import TogetherReport
from saelab.models import LanguageModel
from saelab.ranks import Ranks
from saelab.ranks.agreement import agree_on
from saelab.ranks.mesh import meshed


def evaluate_together(
    config: EvaluateConfig, model: LanguageModel | None = None, ranks: Ranks | None = None
) -> TogetherReport:
    """Substitute the dictionaries of all runs in the same forward pass; writes evaluation/together.json of the first.

    A report that exists with the same dictionaries and settings is read instead of made again.

    Args:
        model: a model that is loaded already; else the one that the runs name is.
        ranks: the processes that share the work; each calls this with the same arguments and gets the report.

    Raises:
        UserError: two runs differ in model, text or token policy, or write at one site; or a report exists that was
            made of other dictionaries or with other settings (and `overwrite` is off); a rank differs or died.
    """
    ranks = ranks or Ranks()
    runs = [given(run, config) for run in config.runs]
    _check_shared(runs)
    subjects = [run.subject for run in runs]
    check_apart(subjects)
    path = runs[0].paths.report("together")
    finished = None if config.overwrite else _finished(path, runs, config)
    agree_on(ranks, facts(config, runs) | {"finished": finished is not None})
    if finished is not None:
        return finished
    with meshed(ranks, ranks.size, 1) as mesh:
        model, rows, text = opened(runs[0].conditions, config, model, ranks)
        report = measure_together(
            model,
            [replace(subject, dictionary=subject.dictionary.to(model.device)) for subject in subjects],
            rows,
            mean_tokens=config.mean_tokens,
            resamples=config.resamples,
            seed=config.seed,
            text=text,
            mesh=mesh,
        )
        if ranks.first:
            report.save(path)
        ranks.gather("saved")
    return report


def _check_shared(runs: Sequence[Given]) -> None:
    first = runs[0]
    for other in runs[1:]:
        changes = differences(first.conditions.model_dump(mode="json"), other.conditions.model_dump(mode="json"))
        if changes:
            raise UserError(
                f"{first.subject.name} and {other.subject.name} can't be substituted together: they differ in "
                f"{'; '.join(changes)}"
            )


def _finished(path: Path, runs: Sequence[Given], config: EvaluateConfig) -> TogetherReport | None:
    """The report that is there, None if there is none."""
    if not path.exists():
        return None
    report = load_report(TogetherReport, path)
    stated = [run.stated(config) for run in runs]
    made = [about.model_dump(mode="json", include=set(stated[0])) for about in report.about]
    if made != stated:
        names = ", ".join(about.dictionary for about in report.about)
        raise UserError(f"{path} was made of {names}, perhaps with other settings; add --overwrite to replace it")
    return report
