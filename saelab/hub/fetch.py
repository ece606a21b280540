"""A dictionary out of a repository: downloaded into huggingface_hub's cache, checked, and read by its format.

A repository is a stranger's. Only files that a format names are fetched, under names that stay inside their folder and
after their sizes were held against the free disk; no code in it runs; every file must have the checksum that the Hub
lists.
"""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from saelab.disk import require_free_space, sha256
from saelab.errors import UserError
from saelab.hub.connection import hub, one_sentence
from saelab.hub.formats import Entry, Format, Imported
from saelab.hub.listing import Found, Listing, is_safe
from saelab.hub.reference import Reference

_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class Fetched:
    """A dictionary that was downloaded and read."""

    listing: Listing
    found: Found
    form: Format
    snapshot: Path
    """The repository in the cache, as far as it was downloaded."""
    imported: Imported


def fetch(listing: Listing, reference: Reference) -> Fetched:
    """Download the dictionary that `reference` names and read it.

    Raises:
        UserError: it holds none or several, a download fails, a file is not what the Hub lists, or no format reads it.
    """
    found = listing.choose(reference.id)
    snapshot = download(listing, found.files)
    read = []
    for form, entry in found.claims:
        with _alone(snapshot, entry, listing.repo) as folder:
            if form.recognises(folder):
                read.append((form, form.read(folder)))
    if len(read) != 1:
        what = "several formats at once" if read else "none of the formats that its file names promise"
        raise UserError(f"{listing.repo}:{found.id} is in {what} ({found.formats})")
    ((form, imported),) = read
    return Fetched(listing, found, form, snapshot, imported)


@contextmanager
def _alone(snapshot: Path, entry: Entry, repo: str) -> Iterator[Path]:
    """A folder of the entry's name that holds its files and nothing else; refusals name the repository in its place."""
    if entry.id and not is_safe(entry.id):
        raise UserError(f"{repo} names a dictionary {entry.id!r}, which may leave its folder")
    with tempfile.TemporaryDirectory(prefix="saelab-") as scratch:
        folder = Path(scratch) / entry.id
        folder.mkdir(parents=True, exist_ok=True)
        for name in entry.files:
            (folder / Path(name).name).symlink_to(os.path.realpath(snapshot / name))
        try:
            yield folder
        except UserError as error:
            raise UserError(str(error).replace(str(folder), f"{repo}:{entry.id}")) from error


def download(listing: Listing, names: Sequence[str]) -> Path:
    """Bring files of the repository into the cache and check them; gives the folder that they lie in.

    Raises:
        UserError: a name that leaves its folder, no room, no connection, or a checksum that differs. A damaged file is
            taken out of the cache again.
    """
    for name in names:
        if not is_safe(name):
            raise UserError(f"{listing.repo} names a file {name!r}, which may leave its folder; nothing was fetched")
    from huggingface_hub.constants import HF_HUB_CACHE

    if not listing.from_cache:
        require_free_space(Path(HF_HUB_CACHE), listing.size(names), f"the download of {listing.repo}")
    with one_sentence(listing.repo, f"downloading {listing.repo}"):
        snapshot = Path(
            hub().snapshot_download(
                listing.repo, revision=listing.commit, allow_patterns=[glob.escape(name) for name in names]
            )
        )
    damaged = [name for name in names if not _is_whole(listing, name, snapshot / name)]
    for name in damaged:
        Path(os.path.realpath(snapshot / name)).unlink(missing_ok=True)
        (snapshot / name).unlink(missing_ok=True)
    if damaged:
        raise UserError(
            f"{listing.repo}: {damaged[0]} does not have the checksum that the Hub lists; it was taken out of the "
            "cache, and the same command again fetches it anew"
        )
    return snapshot


def _is_whole(listing: Listing, name: str, path: Path) -> bool:
    if not path.is_file():
        return False
    # Without a connection the cache's own name of the file is what the Hub said when it was downloaded.
    expected = listing.files[name].checksum or (Path(os.readlink(path)).name if path.is_symlink() else "")
    return _checksum(path, expected) in (None, expected)


def _checksum(path: Path, expected: str) -> str | None:
    """The checksum of the kind that `expected` is; None when it is none."""
    if len(expected) == 64:
        return sha256(path)
    if len(expected) != 40:
        return None
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())  # as Git names a file
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
