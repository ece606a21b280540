"""`saelab pull`: a dictionary of a repository → a run's folder, with a record of where it came from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml

from saelab import __version__
from saelab.config import Config, build, read_yaml
from saelab.dictionaries import artifact
from saelab.disk import RunPaths, read_json, require_free_space, sha256, staged_directory, write_json, write_text
from saelab.errors import UserError
from saelab.features.schema import TABLES, summary_path
from saelab.hub import formats
from saelab.hub.described import known_report
from saelab.hub.fetch import Fetched, download, fetch
from saelab.hub.formats.untrusted import Settings
from saelab.hub.listing import Listing, RemoteFile
from saelab.hub.privacy import without_machine_paths
from saelab.hub.reference import Reference

_LARGEST_YAML = 2**20  # bytes


class PulledFile(Config):
    """A file as it was downloaded."""

    size: int
    checksum: str | None
    """SHA-256 (64 digits) or Git's SHA-1 (40); null where the Hub could not be asked."""


class Placed(Config):
    """What the user said of a dictionary whose files do not say it."""

    site: str | None = None
    """Where it reads."""
    target: str | None = None
    """Where it writes, of a transcoder."""
    model: str | None = None
    """Language model."""


class PullRecord(Config):
    """`pulled.json`: where a dictionary came from."""

    schema_version: Literal[1] = 1
    repo: str
    id: str
    revision: str | None
    """Branch, tag or commit that was asked for."""
    commit: str
    """What that was."""
    format: str
    placed: Placed = Placed()
    files: dict[str, PulledFile]
    notes: tuple[str, ...] = ()
    """How it was read, and what was left out."""
    saelab_version: str = __version__


def pull(
    listing: Listing,
    reference: Reference,
    out: Path,
    placed: Placed = Placed(),  # noqa: B008 (frozen)
    include_index: bool = False,
    overwrite: bool = False,
) -> PullRecord:
    """Download, check, and write the run's folder `out` in one step.

    One that holds the same dictionary already is checked and left as it is.

    Raises:
        UserError: what `fetch` refuses, or `out` holds something else.
    """
    before = _pulled_before(out)
    found = listing.choose(reference.id)
    wanted = (listing.repo, found.id, listing.commit, placed)
    if before is not None and (before.repo, before.id, before.commit, before.placed) == wanted:
        artifact.load(out)
        return before
    if out.exists() and (before is None or not overwrite):
        what = "was pulled from elsewhere" if before else "is not from a repository"
        advice = "give another --out" + (", or --overwrite" if before else "")
        raise UserError(f"{out} exists already and {what}; {advice}")
    fetched = fetch(listing, reference)
    with staged_directory(out, replace=overwrite) as staging:
        require_free_space(staging, 2 * listing.size(found.files), f"the run {out}")
        imported = formats.placed(fetched.imported, placed.site, placed.target, placed.model)
        _dictionary(fetched, imported, RunPaths(staging).dictionary)
        extra, notes = _beside(fetched, RunPaths(staging), include_index)
        names = dict.fromkeys([*found.files, *extra])
        record = PullRecord(
            repo=listing.repo, id=found.id, revision=reference.revision, commit=listing.commit,
            format=fetched.form.name, placed=placed, files={name: _file(listing.files[name]) for name in names},
            notes=(*imported.notes, *notes),
        )  # fmt: skip
        write_json(RunPaths(staging).pulled, record.model_dump(mode="json"))
        artifact.load(staging)
    return record


def _file(file: RemoteFile) -> PulledFile:
    return PulledFile(size=file.size, checksum=file.checksum)


def _pulled_before(out: Path) -> PullRecord | None:
    where = RunPaths(out).pulled
    return build(PullRecord, read_json(where), where=str(where)) if where.is_file() else None


def _dictionary(fetched: Fetched, imported: formats.Imported, target: Path) -> None:
    """Our own files as they are; any other format, or what the user added to, written anew."""
    own, read = formats.named("saelab"), fetched.imported.dictionary
    if fetched.form is not own or imported.dictionary.config != read.config:
        own.write(imported.dictionary, target)
        return
    target.mkdir()
    for name in fetched.found.claimed_by(fetched.form):
        shutil.copyfile(fetched.snapshot / name, target / Path(name).name)


def _beside(fetched: Fetched, run: RunPaths, include_index: bool) -> tuple[list[str], list[str]]:
    """Reports, settings and index that lie with the dictionary; the names of their files, and what was left out."""
    listing, id = fetched.listing, Path(fetched.found.id)
    there = RunPaths(id.parent if RunPaths(id.parent).dictionary == id else id)  # a run that lies there as a whole
    reports = listing.below(there.evaluation.as_posix(), ".json")
    settings = [name for name in [there.config.as_posix()] if name in listing.files]
    index = listing.below(there.features.as_posix(), "") if include_index else []
    if include_index and summary_path(there.features).as_posix() not in index:
        raise UserError(f"{listing.repo}:{fetched.found.id} has no feature index")
    sums = [there.documents(Path(name).stem).as_posix() for name in reports]
    names = [*reports, *(name for name in sums if name in listing.files), *settings, *index]
    if not names:
        return [], []
    snapshot = download(listing, names)
    notes = [*_reports(fetched, [snapshot / name for name in reports], run)]
    for name in settings:
        notes += _settings(snapshot / name, run)
    wanted = {summary_path(there.features).name, *(table.path(there.features).name for table in TABLES)}
    for name in index:
        if Path(name).name in wanted:
            run.features.mkdir(exist_ok=True)
            shutil.copyfile(snapshot / name, run.features / Path(name).name)
    return names, notes


def _reports(fetched: Fetched, files: Sequence[Path], run: RunPaths) -> list[str]:
    """Copy the reports that are about these weights and can be read."""
    notes, weights = [], fetched.imported.dictionary.config.weights_sha256
    for file in files:
        try:
            content = Settings.load(file).values
            known_report(file)
            measured = (content.get("about") or {}).get("dictionary_sha256")
            if fetched.form.name == "saelab" and measured is not None and measured != weights:
                raise UserError("it was measured on other weights")
        except (UserError, AttributeError) as error:
            notes.append(f"evaluation/{file.name} was left out: {error}")
            continue
        write_json(run.evaluation / file.name, content)
        sums = RunPaths(file.parent.parent).documents(file.stem)
        if sums.is_file() and sha256(sums) == content.get("documents_sha256"):
            shutil.copyfile(sums, run.documents(file.stem))
    return notes


def _settings(file: Path, run: RunPaths) -> list[str]:
    """The settings of training, without anything that would name a place on this machine."""
    try:
        if file.stat().st_size > _LARGEST_YAML:
            raise UserError("it is too large for settings")
        settings, _ = without_machine_paths(read_yaml(file) | {"activations": None})
        write_text(run.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    except (UserError, RecursionError, yaml.YAMLError) as error:
        return [f"config.yaml was left out: {error}"]
    return []
