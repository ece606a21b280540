"""What a format is: files found in a listing, recognised in a folder, read into a Dictionary, and written from one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from saelab.dictionaries.dictionary import Dictionary


@dataclass(frozen=True)
class Entry:
    """A dictionary that a listing of file names may hold; nothing of it has been read.

    Attributes:
        id: its folder, relative to what was listed, with "/"; "" when the files lie at the top.
        files: names of the files to fetch, relative to what was listed; all of them lie in that folder.
    """

    id: str
    files: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Imported:
    """A dictionary read from a format, and what whoever uses it should know: what was folded, what no file says."""

    dictionary: Dictionary
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """One way of laying a dictionary down in a folder. Everything read is untrusted."""

    @property
    def name(self) -> str:
        """What `--to` calls it."""
        ...

    def found(self, names: Collection[str]) -> list[Entry]:
        """Dictionaries that a listing of relative file names ("/" between folders) may hold, by names alone."""
        ...

    def recognises(self, folder: Path) -> bool:
        """Whether the files in `folder` are of this format: their names, and what the settings among them say.

        Raises:
            UserError: the names are right and the settings can't be read.
        """
        ...

    def read(self, folder: Path) -> Imported:
        """The dictionary in `folder`, in fp32 on the CPU.

        Raises:
            UserError: the files are damaged, promise what they do not hold, or describe a function that a Dictionary
                can't express; the sentence names the file and the key or tensor.
        """
        ...

    def write(self, dictionary: Dictionary, folder: Path) -> tuple[str, ...]:
        """Write `dictionary`, folded, to the new directory `folder` in one step; gives what the format could not carry.

        Raises:
            UserError: the format can't express this dictionary, with the reason, or `folder` exists.
        """
        ...


def beside(names: Collection[str], needed: Collection[str], optional: Collection[str] = ()) -> Iterator[Entry]:
    """Folders of a listing that hold every file of `needed`, in order of their names, with those of `optional`.

    Names that are absolute or step upwards are no part of any listing of a folder, and are passed over.
    """
    folders: dict[str, set[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
            continue
        folders.setdefault("" if str(path.parent) == "." else str(path.parent), set()).add(path.name)
    for folder, held in sorted(folders.items()):
        if held.issuperset(needed):
            prefix = f"{folder}/" if folder else ""
            yield Entry(folder, tuple(prefix + name for name in (*needed, *optional) if name in held))
