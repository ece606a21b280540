"""What a repository holds as of one commit: its files, and the dictionaries that they may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from saelab.disk.layout import PublishedPaths
from saelab.errors import UserError
from saelab.hub.connection import hub, one_sentence
from saelab.hub.formats import FORMATS, Entry, Format, named
from saelab.hub.reference import Reference


@dataclass(frozen=True)
class RemoteFile:
    """A file as the repository lists it."""

    size: int
    checksum: str | None
    """SHA-256 (64 digits) of a large file, Git's SHA-1 (40 digits) of another; None where only the cache was asked."""


@dataclass(frozen=True)
class Found:
    """A dictionary that a repository may hold; several formats may claim it by the names of its files."""

    id: str
    claims: tuple[tuple[Format, Entry], ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that any of the formats wants to see."""
        return tuple(dict.fromkeys(name for _, entry in self.claims for name in entry.files))

    def claimed_by(self, form: Format) -> tuple[str, ...]:
        """What one of the formats wants to see."""
        return next(entry.files for claimant, entry in self.claims if claimant is form)

    @property
    def formats(self) -> str:
        return " or ".join(form.name for form, _ in self.claims)


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repo: str
    commit: str
    files: dict[str, RemoteFile]
    from_cache: bool
    """The Hub could not be asked."""

    def dictionaries(self) -> list[Found]:
        """All of them, without the copies in other formats that saelab puts beside its own."""
        claims: dict[str, list[tuple[Format, Entry]]] = {}
        for form in FORMATS:
            for entry in form.found(self.files):
                claims.setdefault(entry.id, []).append((form, entry))
        own = {entry.id for entry in named("saelab").found(self.files)}
        copies = {PublishedPaths(Path()).saelens(id).as_posix() for id in own}
        return [Found(id, tuple(claims[id])) for id in sorted(claims) if id not in copies or id in own]

    def choose(self, id: str | None) -> Found:
        """The dictionary of that id, or the only one whose id begins with it.

        Raises:
            UserError: there is none, or there are several.
        """
        found = self.dictionaries()
        if not found:
            raise UserError(
                f"{self.repo} holds no dictionary in a known format ({', '.join(form.name for form in FORMATS)})"
            )
        wanted = PurePosixPath(id or "")
        exact = [one for one in found if id is not None and PurePosixPath(one.id) == wanted]
        below = [one for one in found if id is None or PurePosixPath(one.id).is_relative_to(wanted)]
        match exact or below:
            case [one]:
                return one
            case []:
                raise UserError(f"{self.repo} holds no {id!r}; it holds {_some(found)}")
            case several:
                where = f"under {id!r} " if id else ""
                raise UserError(f"{self.repo} holds {len(several)} dictionaries {where}({_some(several)}); name one: "
                                f"{self.repo}:{several[0].id}")  # fmt: skip

    def size(self, names: Iterable[str]) -> int:
        """Bytes of these files."""
        return sum(self.files[name].size for name in names)

    def below(self, folder: str, suffix: str) -> list[str]:
        """Files that lie directly in `folder` and end so."""
        return [
            name
            for name in sorted(self.files)
            if is_safe(name) and PurePosixPath(name).parent == PurePosixPath(folder) and name.endswith(suffix)
        ]


def listing(reference: Reference) -> Listing:
    """Ask the Hub what a repository holds; without a connection, what the cache knows of it.

    Raises:
        UserError: there is no such repository or revision, it may not be seen, or nobody can be asked.
    """
    repo = reference.repo
    with one_sentence(repo, f"looking into {repo}"):
        commit = hub().resolve_revision(repo, revision=reference.revision)
        files, from_cache = _files(repo, commit.resolved)
    return Listing(repo, commit.resolved, files, from_cache)


def _files(repo: str, commit: str) -> tuple[dict[str, RemoteFile], bool]:
    from huggingface_hub import RepoFile, get_cached_repo_tree
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    try:
        tree = list(hub().list_repo_tree(repo, revision=commit, recursive=True))
    except (httpx.TransportError, OfflineModeIsEnabled):
        return {file.path: RemoteFile(file.size, None) for file in get_cached_repo_tree(repo, revision=commit)}, True
    files = [file for file in tree if isinstance(file, RepoFile)]
    return {f.path: RemoteFile(f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in files}, False


def is_safe(name: str) -> bool:
    """Whether a listed name stays inside the folder that it is put into, on any system."""
    path = PurePosixPath(name)
    plain = str(path) == name and "\\" not in name and ":" not in name and name.isprintable()
    return bool(path.parts) and plain and not path.is_absolute() and ".." not in path.parts


def _some(found: Sequence[Found]) -> str:
    ids = [one.id or "one at the top" for one in found]
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
