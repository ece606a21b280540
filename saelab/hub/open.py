"""`saelab.load`: a dictionary from a run, from a folder in any format, or from the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from saelab.dictionaries import artifact
from saelab.disk import RunPaths
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.hub.reference import Reference, parse

if TYPE_CHECKING:
    import torch

    from saelab.dictionaries.dictionary import Dictionary
    from saelab.hub.formats import Imported


def load(source: Path | str, device: torch.device | str = "cpu") -> Dictionary:
    """Load a dictionary and check it.

    Args:
        source: a run, a dictionary's folder in any format that saelab reads, or `user/repo[:id][@revision]` on the Hub.

    Raises:
        UserError: nothing is there, it is damaged, or it says things that saelab can't do.
    """
    path = Path(source)
    if is_own(path):
        return artifact.load(path, device)
    return open_dictionary(source).dictionary.to(device)


def open_dictionary(source: Path | str) -> Imported:
    """A dictionary in any format, with what there is to know about how it was read."""
    from saelab.hub import formats

    path, reference = Path(source), as_reference(source)
    if reference is None:
        if is_own(path) or not path.is_dir() or RunPaths(path).config.is_file():
            return formats.Imported(artifact.load(path))
        return formats.read(path)
    from saelab.hub.fetch import fetch
    from saelab.hub.listing import listing

    with no_folder(source):
        return fetch(listing(reference), reference).imported


def as_reference(source: Path | str) -> Reference | None:
    """The repository that `source` means; None when it is a path: one that exists always is."""
    return None if isinstance(source, Path) or Path(source).exists() else parse(source)


@contextmanager
def no_folder(source: Path | str) -> Iterator[None]:
    """Whatever goes wrong with a repository, it may have been meant as a path."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source} is no folder here; as a repository: {error}") from error


def is_own(path: Path) -> bool:
    """Whether a run or a dictionary of saelab's own lies there."""
    places = (DictionaryPaths(path), DictionaryPaths(RunPaths(path).dictionary))
    return any(place.config.is_file() and place.weights.is_file() for place in places)
