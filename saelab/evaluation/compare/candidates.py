"""What runs hold: their finished reports, and the sums per document behind them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.config import read_yaml
from saelab.disk import RunPaths, sha256
from saelab.disk.tensors import read_tensors
from saelab.errors import UserError
from saelab.evaluation.config import Suite
from saelab.evaluation.ioi.report import IoiReport
from saelab.evaluation.provenance import Provenance
from saelab.evaluation.report import FidelityReport, load_report
from saelab.evaluation.reports import REPORTS, AnyReport

ReportT = TypeVar("ReportT")


@dataclass(frozen=True)
class Candidate:
    """A run under comparison, under a name that no other has."""

    name: str
    run: Path
    reports: Mapping[str, AnyReport]
    ioi: IoiReport | None
    seed: int | None
    """Of its training; None where that is not recorded."""
    settings: str | None
    """Its training settings but for the seeds, as one string: runs with equal ones are seeds of one another."""

    @property
    def fidelity(self) -> FidelityReport:
        report = self.reports["fidelity"]
        assert isinstance(report, FidelityReport)
        return report

    @property
    def about(self) -> Provenance:
        return self.fidelity.about

    @property
    def place(self) -> tuple[str, ...]:
        """Where in the model it reads and writes."""
        return (self.about.site, *self.about.targets)

    def documents(self, suite: Suite, names: Collection[str] | None = None) -> Documents | None:
        """The sums behind the report of a suite; None for a report that kept none.

        Args:
            names: of the tensors to read; all, when left out.

        Raises:
            UserError: the file is not the one that the report was made with.
        """
        expected = getattr(self.reports[suite], "documents_sha256", None)
        if expected is None:
            return None
        path = RunPaths(self.run).documents(suite)
        if not path.is_file() or sha256(path) != expected:
            again = f"`saelab evaluate {self.run} --suite {suite} --overwrite` makes both again"
            raise UserError(f"{path} is missing or not the file that belongs to the report beside it; {again}")
        tensors = read_tensors(path)
        return Documents.of({n: t for n, t in tensors.items() if names is None or n in names or n == "document"})


@dataclass(frozen=True)
class Documents:
    """Per-document sums: numbers of the documents, ascending, and a row of columns for each."""

    numbers: list[int]
    columns: tuple[str, ...]
    table: Float[Tensor, "documents columns"]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Documents:
        """From the file's tensors; what has a number for each label becomes columns "name 0", "name 1", …"""
        columns: dict[str, Tensor] = {}
        for name in sorted(tensors.keys() - {"document"}):
            values = tensors[name].double()
            of_name = {name: values} if values.ndim == 1 else {f"{name} {i}": v for i, v in enumerate(values.unbind(1))}
            columns |= of_name
        return cls(tensors["document"].tolist(), tuple(columns), torch.stack(list(columns.values()), dim=1))


def read(runs: Sequence[Path]) -> list[Candidate]:
    """All reports that lie beside the runs.

    Raises:
        UserError: a run is named twice, is not there, or has no report of the fidelity suite.
    """
    twice = [run for run in runs if [other.resolve() for other in runs].count(run.resolve()) > 1]
    if twice:
        raise UserError(f"{twice[0]} is given twice; compare it with other runs")
    names = short_names([run.resolve() for run in runs])
    without = [run for run in runs if not RunPaths(run).report("fidelity").is_file()]
    if without:
        for run in without:
            if not run.is_dir():
                raise UserError(f"{run} does not exist")
        all_runs = " ".join(map(str, runs))
        raise UserError(
            f"{' and '.join(map(str, without[:3]))} {'has' if len(without) == 1 else 'have'} no finished fidelity "
            f"report; `saelab evaluate {all_runs}` makes what is missing in one pass, and so does --evaluate here"
        )
    return [_candidate(run, name) for run, name in zip(runs, names, strict=True)]


def missing(candidates: Sequence[Candidate]) -> Iterator[str]:
    """Suites that some or all have no report of, each with the command that makes it."""
    for suite in REPORTS:
        without = [candidate for candidate in candidates if suite not in candidate.reports]
        if without:
            whose = "none has it" if len(without) == len(candidates) else ", ".join(c.name for c in without)
            command = f"saelab evaluate {' '.join(str(c.run) for c in without)} --suite {suite}"
            yield f"{suite} ({whose}): `{command}`"


def short_names(paths: Sequence[Path]) -> list[str]:
    """The fewest last parts of each path that tell it from the others."""
    longest = max(len(path.parts) for path in paths)
    for depth in range(1, longest + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _candidate(run: Path, name: str) -> Candidate:
    paths = RunPaths(run)
    reports: dict[str, AnyReport] = {}
    for suite, kind in REPORTS.items():
        if paths.report(suite).is_file():
            report = load_report(kind, paths.report(suite))
            about = report.about.model_copy(update={"dictionary": name})
            reports[suite] = report.model_copy(update={"about": about})
    ioi = load_report(IoiReport, paths.report("ioi")) if paths.report("ioi").is_file() else None
    settings = read_yaml(paths.config) if paths.config.is_file() else None
    seed, _ = (None, None) if settings is None else (settings.pop("seed", None), settings.pop("shuffle_seed", None))
    return Candidate(name, run, reports, ioi, seed, None if settings is None else json.dumps(settings, sort_keys=True))
