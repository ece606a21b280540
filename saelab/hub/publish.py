"""`saelab publish`: finished runs → a repository on the Hugging Face Hub, or the same folder on this disk.

What a repository holds already stays, and stands in the new card beside what is added. A publication that was stopped
is finished by the same command: what the Hub has is not sent again.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from saelab.disk import staged_directory
from saelab.disk.layout import PublishedPaths
from saelab.errors import UserError
from saelab.hub.candidate import Candidate, candidate
from saelab.hub.connection import hub, one_sentence
from saelab.hub.described import Described, describe, small_files
from saelab.hub.formats import named
from saelab.hub.privacy import require_no_token
from saelab.hub.reference import parse
from saelab.hub.stage import Place, stage, write_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_PULL_REQUEST = "refs/pr/"


@dataclass(frozen=True)
class Publication:
    """What goes out, where to, and how."""

    runs: tuple[Path, ...]
    repo: str
    """`user/name`."""
    private: bool = False
    """Make the repository a private one; one that exists must be private."""
    branch: str | None = None
    """Where to commit; made where it does not exist. Left out, the main branch; refs/pr/N goes on with a proposal."""
    pull_request: bool = False
    """Propose instead of commit."""
    message: str | None = None
    """Of the commit."""
    license: str | None = None
    """As the Hub writes it: mit, apache-2.0, cc-by-4.0, …"""
    base_model: str | None = None
    """The language model's name on the Hub, where the runs name a folder of this machine."""
    include_index: bool = False
    saelens: bool = True
    """Put a copy in SAELens' format beside each dictionary."""
    force: bool = False
    """Publish without an evaluation; the card says so."""


def publish(publication: Publication) -> str:
    """Publish; gives the address of the commit or pull request.

    Raises:
        UserError: something is wrong with a run (nothing was sent then), or the Hub refuses or can't be reached.
    """
    _check(publication)
    candidates = _candidates(publication)
    api, repo = hub(), publication.repo
    with tempfile.TemporaryDirectory(prefix="saelab-publish-") as scratch:
        folder = Path(scratch) / "repository"
        _stage(publication, candidates, folder, place=lambda source, target: target.symlink_to(source.resolve()))
        with one_sentence(repo, f"publishing to {repo}"):
            _prepare(api, publication)
            before, license = _published_before(api, publication, [c.id for c in candidates], Path(scratch) / "before")
        found = [*before, *(describe(PublishedPaths(folder), c.id) for c in candidates)]
        _write_card(replace(publication, license=publication.license or license), folder, found)
        with one_sentence(repo, f"publishing to {repo}"):
            return _upload(api, publication, folder, [c.id for c in candidates])


def dry_run(publication: Publication, out: Path) -> None:
    """Write what would be published to the new directory `out`; the Hub is not asked.

    Raises:
        UserError: something is wrong with a run, or `out` exists.
    """
    _check(publication)
    candidates = _candidates(publication)
    with staged_directory(out) as folder:
        _stage(publication, candidates, folder, place=shutil.copyfile)
        _write_card(publication, folder, [describe(PublishedPaths(folder), c.id) for c in candidates])


def _check(publication: Publication) -> None:
    reference = parse(publication.repo)
    if reference is None or reference.id or reference.revision:
        raise UserError(f"{publication.repo!r} is no name of a repository; write user/name behind the runs")
    if publication.branch and publication.pull_request:
        raise UserError("a pull request is made against the main branch; give --branch or --pull-request, not both")


def _candidates(publication: Publication) -> list[Candidate]:
    """All runs, checked; what speaks against one stops all of them."""
    if not publication.runs:
        raise UserError("give at least one run to publish: saelab publish RUN... user/name")
    found = [candidate(run, publication.base_model) for run in publication.runs]
    for one in found:
        if one.objections and not publication.force:
            raise UserError(
                f"{one.run.root}: {one.objections[0]}; --force publishes it all the same, and the card will say so"
            )
    ids = [one.id for one in found]
    if twice := next((id for id in ids if ids.count(id) > 1), None):
        raise UserError(f"two of these runs would both be {twice} in the repository; rename one of the folders")
    return found


def _stage(publication: Publication, candidates: Sequence[Candidate], folder: Path, place: Place) -> None:
    folder.mkdir(exist_ok=True)
    for one in candidates:
        stage(one, folder, place, publication.include_index, publication.saelens)


def _write_card(publication: Publication, folder: Path, found: Sequence[Described]) -> None:
    # What lies in a pull request is meant for the main branch.
    branch = None if (publication.branch or "").startswith(_PULL_REQUEST) else publication.branch
    write_card(folder, publication.repo, sorted(found, key=lambda d: d.id), publication.license, branch)
    from huggingface_hub import get_token

    require_no_token(folder, [get_token()])


def _prepare(api: HfApi, publication: Publication) -> None:
    """Make repository and branch where they are missing.

    Raises:
        UserError: a private repository is wanted and this one is public.
    """
    repo, branch = publication.repo, publication.branch
    if publication.pull_request:
        api.model_info(repo)  # a proposal is made to what exists
        return
    api.create_repo(repo, private=publication.private or None, exist_ok=True)
    if publication.private and not api.model_info(repo).private:
        raise UserError(f"{repo} exists and is public; make it private on its page first, or leave --private out")
    if branch and not branch.startswith(_PULL_REQUEST):
        api.create_branch(repo, branch=branch, exist_ok=True)


def _published_before(
    api: HfApi, publication: Publication, ours: Collection[str], folder: Path
) -> tuple[list[Described], str | None]:
    """Dictionaries that the repository holds besides those of `ours`, by their small files, and its licence."""
    from huggingface_hub import ModelCard

    names, here = api.list_repo_files(publication.repo, revision=publication.branch), PublishedPaths(folder)
    others = [entry.id for entry in named("saelab").found(names) if entry.id and entry.id not in ours]
    patterns = [pattern for id in others for pattern in small_files(here, id)]
    wanted = [*patterns, *(name for name in names if name == here.link(here.card))]
    if not wanted:
        return [], None
    api.snapshot_download(publication.repo, revision=publication.branch, allow_patterns=wanted, local_dir=folder)
    license = ModelCard.load(here.card).data.get("license") if here.card.is_file() else None
    return [describe(here, id) for id in others], license if isinstance(license, str) else None


def _upload(api: HfApi, publication: Publication, folder: Path, ids: Sequence[str]) -> str:
    with warnings.catch_warnings():
        # The feature index is meant to be there.
        warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
        done = api.upload_folder(
            repo_id=publication.repo, folder_path=folder, revision=publication.branch,
            create_pr=publication.pull_request, delete_patterns=[f"{id}/*" for id in ids],
            commit_message=publication.message or f"Publish {', '.join(ids)} with saelab",
        )  # fmt: skip
    return done.pr_url or done.commit_url
