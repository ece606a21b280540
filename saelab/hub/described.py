"""A dictionary as its folder in a repository describes it: what the card is written from."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelab import __version__
from saelab.config import Config, build, read_yaml
from saelab.dictionaries.config import DictionaryConfig
from saelab.disk import RunPaths, read_json
from saelab.disk.layout import DictionaryPaths, PublishedPaths
from saelab.evaluation.report import FidelityReport, SparsityReport, load_report
from saelab.evaluation.reports import REPORTS, AnyReport


class PublicationRecord(Config):
    """`publication.json`: what happened to a dictionary's files on their way out."""

    saelab_version: str = __version__
    base_model: str | None = None
    """The language model's name on the Hub, where it has one."""
    notes: tuple[str, ...] = ()
    """What was cut or replaced."""
    objections: tuple[str, ...] = ()
    """What spoke against publishing it, and was overruled."""
    saelens: str | None = None
    """Why there is no copy for SAELens; null where there is one."""
    saelens_lost: tuple[str, ...] = ()
    """What SAELens' format can't carry."""
    has_index: bool = False
    """Whether its feature index was published too."""


@dataclass(frozen=True)
class Described:
    """Everything that a card says about one dictionary."""

    id: str
    config: DictionaryConfig
    training: dict[str, Any] | None
    reports: Mapping[str, AnyReport]
    """Of suites with tables of their own."""
    others: tuple[str, ...]
    """Further suites that have a report."""
    record: PublicationRecord

    @property
    def fidelity(self) -> FidelityReport | None:
        report = self.reports.get("fidelity")
        return report if isinstance(report, FidelityReport) else None

    @property
    def sparsity(self) -> SparsityReport | None:
        report = self.reports.get("sparsity")
        return report if isinstance(report, SparsityReport) else None


def describe(repository: PublishedPaths, id: str) -> Described:
    """Read a dictionary's folder; its weights are not needed."""
    run, files = RunPaths(repository.entry(id)), DictionaryPaths(repository.entry(id))
    places = {str(suite): place for place, suite in enumerate(REPORTS)}
    suites = sorted(
        (file.stem for file in run.evaluation.glob("*.json")), key=lambda s: (places.get(s, len(places)), s)
    )
    read = {suite: known_report(run.report(suite)) for suite in suites}
    reports = {suite: report for suite, report in read.items() if report is not None}
    record = repository.publication(id)
    return Described(
        id,
        build(DictionaryConfig, read_json(files.config), where=str(files.config)),
        read_yaml(run.config) if run.config.is_file() else None,
        reports,
        tuple(suite for suite in suites if suite not in reports),
        build(PublicationRecord, read_json(record), where=str(record)) if record.is_file() else PublicationRecord(),
    )


def known_report(path: Path) -> AnyReport | None:
    """The report of a suite that saelab has; None for another's."""
    kind = {str(suite): kind for suite, kind in REPORTS.items()}.get(path.stem)
    return None if kind is None else load_report(kind, path)


def small_files(repository: PublishedPaths, id: str) -> tuple[str, ...]:
    """Patterns of the files that `describe` reads, relative to the repository."""
    run, files = RunPaths(repository.entry(id)), DictionaryPaths(repository.entry(id))
    wanted = (files.config, run.config, repository.publication(id), run.report("*"))
    return tuple(glob.escape(repository.link(path.parent)) + "/" + path.name for path in wanted)
