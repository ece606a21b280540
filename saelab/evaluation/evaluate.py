"""`saelab evaluate`: runs in, reports beside them out; what is finished is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from saelab.activations.forward import tokenizer_of, without_sinks
from saelab.config import Config, build, differences
from saelab.corpora import CorpusConfig, TokenPolicy, TokenRows, label_rows, pack
from saelab.corpora.config import GENERATED
from saelab.dictionaries.artifact import load
from saelab.disk import RunPaths, sha256
from saelab.disk.tensors import write_tensors
from saelab.errors import UserError
from saelab.evaluation.batch import Subject
from saelab.evaluation.conditions import Text
from saelab.evaluation.config import EvaluateConfig, Suite
from saelab.evaluation.measure import Measured, measured
from saelab.evaluation.report import load_report
from saelab.evaluation.reports import REPORTS, AnyReport
from saelab.evaluation.text import held_out
from saelab.models import LanguageModel, Site
from saelab.ranks import Ranks
from saelab.ranks.agreement import agree_on
from saelab.ranks.mesh import Mesh, meshed
from saelab.training.origin import recorded


class Conditions(Config):
    """What must be equal for dictionaries to share a pass."""

    model: str
    dtype: Literal["float32", "bfloat16", "float16"]
    corpus: CorpusConfig
    policy: TokenPolicy


@dataclass(frozen=True)
class Given:
    """One run, and what it is to be evaluated on."""

    paths: RunPaths
    subject: Subject
    conditions: Conditions

    def stated(self, config: EvaluateConfig) -> dict[str, Any]:
        """What a report of it says in `about` if it was made of these weights with these settings."""
        return {
            "dictionary_sha256": self.subject.dictionary.config.weights_sha256,
            "dtype": self.conditions.dtype,
            "corpus": self.conditions.corpus.model_dump(mode="json"),
            "seed": config.seed,
            "settings": settings_of(config),
        }


@dataclass(frozen=True)
class _Job(Given):
    """With the suites that are finished already."""

    finished: dict[Suite, AnyReport]


def evaluate(config: EvaluateConfig, model: LanguageModel | None = None, ranks: Ranks | None = None) -> list[AnyReport]:
    """Evaluate all runs of `config` and write runs/<name>/evaluation/<suite>.json.

    Runs with the same model, text and token policy share one pass. A report that exists with the same settings and
    weights is read instead of made again.

    Args:
        model: a model that is loaded already, used for every run; else each run's own is loaded.
        ranks: the processes that share the work (`saelab.ranks.joined`); each calls this with the same arguments and
            gets all reports. The first one writes them.

    Returns:
        One report for each run and suite, runs in the order given, suites inside.

    Raises:
        UserError: a run is not one, a dictionary does not fit its model, the text runs out before the first row, or a
            report exists that was made with other settings (and `overwrite` is off); a rank differs or died.
    """
    if config.together:
        raise UserError("together: several dictionaries in one pass are what evaluate_together measures")
    ranks = ranks or Ranks()
    jobs = [_job(run, config) for run in config.runs]
    agree_on(ranks, facts(config, jobs) | {"finished": [list(job.finished) for job in jobs]})
    reports = {(job.paths.root, suite): report for job in jobs for suite, report in job.finished.items()}
    unfinished = [job for job in jobs if len(job.finished) < len(config.suites)]
    shared: dict[str, list[_Job]] = {}
    for job in unfinished:
        shared.setdefault(job.conditions.model_dump_json(), []).append(job)
    with meshed(ranks, ranks.size, 1) as mesh:
        for together in shared.values():
            reports |= _pass(together, config, model, mesh)
    return [reports[job.paths.root, suite] for job in jobs for suite in config.suites]


def facts(config: EvaluateConfig, runs: Sequence[Given]) -> dict[str, Any]:
    """What all ranks must mean alike before they share an evaluation."""
    return {
        "settings": config.model_dump(mode="json", exclude={"device"}),
        "dictionaries": [run.subject.dictionary.config.weights_sha256 for run in runs],
        "texts": [run.conditions.model_dump(mode="json") for run in runs],
        "threads": torch.get_num_threads(),
    }


class Opened(NamedTuple):
    """A loaded model and the held-out text for it."""

    model: LanguageModel
    rows: Iterator[TokenRows]
    text: Text


def opened(conditions: Conditions, config: EvaluateConfig, model: LanguageModel | None, ranks: Ranks) -> Opened:
    """Load what a pass needs.

    Raises:
        UserError: rows of the token policy are too long for the model, or ranks have different models.
    """
    context, device = conditions.policy.context, ranks.device(config.device)
    model = model or LanguageModel.load(conditions.model, dtype=conditions.dtype, device=device)
    agree_on(ranks, {"model": model.fingerprint, "tokenizer": model.tokenizer_fingerprint, "device": model.device.type})
    if context > model.n_ctx:
        raise UserError(f"policy.context = {context} is longer than the {model.n_ctx} positions of model {model.name}")
    corpus, policy, tokenizer = conditions.corpus, conditions.policy, tokenizer_of(model)
    n_rows = -(-config.tokens // context)
    rows = pack(corpus, tokenizer, policy, rows=min(config.batch_rows, n_rows), limit=n_rows)
    known = partial(label_rows, corpus=corpus, tokenizer=tokenizer) if corpus.source in GENERATED else None

    def ready(chunk: TokenRows) -> TokenRows:
        return next(without_sinks(model, policy, [chunk]))

    text = Text(corpus.model_dump(mode="json"), settings_of(config), n_rows * context, known, ready)
    return Opened(model, rows, text)


def _pass(
    jobs: Sequence[_Job], config: EvaluateConfig, model: LanguageModel | None, mesh: Mesh
) -> dict[tuple[Path, Suite], AnyReport]:
    """One pass over model and text for all `jobs`, which share their conditions.

    Every report is saved as soon as it is there, so that an interruption loses the others only.
    """
    model, rows, text = opened(jobs[0].conditions, config, model, mesh.ranks)
    wanted = list(product(jobs, config.suites))
    made: list[AnyReport] = []
    for found in measured(
        model,
        [replace(job.subject, dictionary=job.subject.dictionary.to(model.device)) for job in jobs],
        rows,
        config.suites,
        mean_tokens=config.mean_tokens,
        resamples=config.resamples,
        seed=config.seed,
        steering=config.steering,
        text=text,
        mesh=mesh,
    ):
        job, suite = wanted[len(made)]
        made.append(_saved(found, job.paths, suite))
    told = json.loads(mesh.ranks.share("reports", lambda: json.dumps([report.model_dump_json() for report in made])))
    return {
        (job.paths.root, suite): REPORTS[suite].model_validate_json(report)
        for (job, suite), report in zip(wanted, told, strict=True)
    }


def _saved(found: Measured, paths: RunPaths, suite: Suite) -> AnyReport:
    """Write the sums behind a report, then the report, which names their checksum."""
    report = found.report
    if found.documents is not None:
        file = paths.documents(suite)
        write_tensors(file, found.documents)
        report = report.model_copy(update={"documents_sha256": sha256(file)})
    report.save(paths.report(suite))
    return report


def given(run: Path, config: EvaluateConfig) -> Given:
    """Open a run; its model and text are looked up, not loaded.

    Raises:
        UserError: it holds no dictionary, or no text is known.
    """
    dictionary = load(run)
    made_on = recorded(run)
    conditions = build(
        Conditions,
        {
            "model": config.model or dictionary.model_name,
            "dtype": config.dtype or made_on.dtype or "float32",
            "corpus": held_out(run, config.corpus, made_on.corpus),
            "policy": dictionary.config.policy,
        },
        where=str(run),
    )
    subject = Subject(run.resolve().name, dictionary, Site.parse(dictionary.site))
    return Given(RunPaths(run), subject, conditions)


def _job(run: Path, config: EvaluateConfig) -> _Job:
    one = given(run, config)
    stated = one.stated(config)
    finished: dict[Suite, AnyReport] = {}
    for suite in config.suites:
        here = stated | ({"settings": stated["settings"] | _of_steering(config)} if suite == "steering" else {})
        report = None if config.overwrite else _finished(one.paths.report(suite), suite, here)
        if report is not None:
            finished[suite] = report
    return _Job(one.paths, one.subject, one.conditions, finished)


def _finished(path: Path, suite: Suite, expected: dict[str, Any]) -> AnyReport | None:
    """The report that is there, None if there is none; one that was made with other settings is refused."""
    if not path.exists():
        return None
    report = load_report(REPORTS[suite], path)
    changes = differences(report.about.model_dump(mode="json", include=set(expected)), expected)
    if changes:
        raise UserError(f"{path} was made with other settings ({'; '.join(changes)}); add --overwrite to replace it")
    return report


def settings_of(config: EvaluateConfig) -> dict[str, Any]:
    """What decides the numbers and is not stated elsewhere in a report."""
    return config.model_dump(mode="json", include={"tokens", "mean_tokens", "resamples"})


def _of_steering(config: EvaluateConfig) -> dict[str, Any]:
    """Those of the steering suite, which stand in its reports alone."""
    return config.model_dump(mode="json", include={"steering"})
