"""The exact folder that is published: files, figures and card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from saelab.disk import RunPaths, read_json, require_free_space, sha256, write_json, write_text
from saelab.disk.layout import DictionaryPaths, PublishedPaths
from saelab.errors import UserError
from saelab.evaluation.report import SparsityMetrics
from saelab.features.schema import summary_path
from saelab.hub.candidate import Candidate
from saelab.hub.card import card
from saelab.hub.described import Described, PublicationRecord, describe
from saelab.hub.drawing import Point, histogram, points
from saelab.hub.formats import named
from saelab.hub.privacy import without_machine_paths

Place = Callable[[Path, Path], object]
"""Puts a file that is published as it is into the folder: `shutil.copyfile`, or a link for what is uploaded at once."""


def stage(candidate: Candidate, folder: Path, place: Place, include_index: bool, saelens: bool) -> None:
    """Write one dictionary's files into the repository's folder.

    Raises:
        UserError: an index is wanted and there is none, or the disk is full.
    """
    repository = PublishedPaths(folder)
    target = repository.entry(candidate.id)
    run, files = RunPaths(target), DictionaryPaths(target)
    target.mkdir(parents=True)
    place(candidate.files.weights, files.weights)
    place(candidate.files.golden, files.golden)
    write_json(files.config, candidate.dictionary.config.model_dump(mode="json"))
    if candidate.training is not None:
        write_text(run.config, yaml.safe_dump(candidate.training, sort_keys=False, allow_unicode=True))
    for suite, report in candidate.reports.items():
        write_json(run.report(suite), report)
        sums = candidate.run.documents(suite)
        if sums.is_file() and sha256(sums) == report.get("documents_sha256"):
            place(sums, run.documents(suite))
    if include_index:
        _index(candidate, run.features, place)
    reason, lost = _for_saelens(candidate, repository.saelens(candidate.id)) if saelens else ("it was left out", ())
    record = PublicationRecord(
        base_model=candidate.base_model, notes=candidate.notes, objections=candidate.objections,
        saelens=reason, saelens_lost=lost, has_index=include_index,
    )  # fmt: skip
    write_json(repository.publication(candidate.id), record.model_dump(mode="json"))
    described = describe(repository, candidate.id)
    if described.sparsity is not None:
        _figures(repository, candidate.id, described.sparsity.metrics)


def write_card(folder: Path, repo: str, found: Sequence[Described], license: str | None, branch: str | None) -> None:
    """README.md, and the figure of all dictionaries together."""
    repository = PublishedPaths(folder)
    shown = [
        Point(d.id, d.fidelity.metrics.l0, d.fidelity.metrics.delta_ce, *_interval(d))
        for d in found
        if d.fidelity and d.fidelity.metrics.l0 is not None and d.fidelity.metrics.delta_ce is not None
    ]
    if len(shown) > 1:
        write_text(
            repository.overview,
            points(shown, "Damage against sparsity", "L0: active latents per token", "ΔCE, nats per token"),
        )
    write_text(repository.card, str(card(repo, found, license, branch)))


def _interval(described: Described) -> tuple[float | None, float | None]:
    interval = described.fidelity.intervals.of.get("delta_ce") if described.fidelity else None
    return (interval.low, interval.high) if interval else (None, None)


def _index(candidate: Candidate, target: Path, place: Place) -> None:
    source = candidate.run.features
    if not summary_path(source).is_file():
        raise UserError(f"{candidate.run.root} has no feature index to include; `saelab index` makes one")
    target.mkdir()
    for table in sorted(source.glob("*.parquet")):
        place(table, target / table.name)
    write_json(summary_path(target), without_machine_paths(read_json(summary_path(source)))[0])


def _for_saelens(candidate: Candidate, target: Path) -> tuple[str | None, tuple[str, ...]]:
    """Why SAELens' format can't hold this dictionary, or None and what it could not carry."""
    require_free_space(target.parent, candidate.files.weights.stat().st_size, f"the copy of {candidate.id} for SAELens")
    try:
        return None, named("saelens").write(candidate.dictionary, target)
    except UserError as error:
        return str(error), ()


def _figures(repository: PublishedPaths, id: str, metrics: SparsityMetrics) -> None:
    write_text(
        repository.figure(id, "density"),
        histogram(
            metrics.density_edges, metrics.density_histogram,
            "How often latents fire", "log10 of density", "live latents",
        ),
    )  # fmt: skip
    last = max((n for n, count in enumerate(metrics.l0_histogram) if count), default=0)
    shown = list(metrics.l0_histogram[: last + 1]) or [0]
    write_text(
        repository.figure(id, "l0"),
        histogram(
            range(len(shown) + 1), shown, "Active latents per token", "latents (a bar begins at its number)", "tokens"
        ),
    )
