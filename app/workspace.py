"""Which runs exist under the folders the app was started with. Only a name found here leads to a path."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from saelab.disk import RunPaths

SEARCH_DEPTH = 4  # how far below a given folder runs are looked for: ioi-demo/dictionaries/FAMILY/NODE in one of runs
SILENCE_SECONDS = 180  # without a line of metrics, after which training is taken for stopped
FOLDERS_VISITED = 2000  # a home directory given by mistake must not hang the page
IOI = "ioi"  # the suite that `saelab ioi` runs on a model, with a report beside its dictionaries instead of in a run


@dataclass(frozen=True)
class Run:
    """A run found on disk. `name` is what the URL and the picker show."""

    name: str
    paths: RunPaths

    @property
    def has_dictionary(self) -> bool:
        return self.paths.dictionary.is_dir()

    @property
    def has_index(self) -> bool:
        return self.paths.features.is_dir()

    @property
    def is_training(self) -> bool:
        """Metrics were written a moment ago, and the dictionary isn't there yet."""
        if self.has_dictionary:
            return False
        try:
            return time.time() - self.paths.metrics.stat().st_mtime < SILENCE_SECONDS
        except OSError:
            return False


@dataclass(frozen=True)
class Workspace:
    """The runs by name, the IOI reports of `saelab ioi` by name, and the folders they were looked for in."""

    folders: tuple[Path, ...]
    runs: dict[str, Run]
    judged: dict[str, Path]

    def get(self, name: str | None) -> Run | None:
        """The run of that name; None for anything else, paths included."""
        return self.runs.get(name) if name is not None else None


def open_workspace(folders: Iterable[Path]) -> Workspace:
    """Look for runs in `folders`: each may be a run itself or hold runs up to four levels down."""
    roots = tuple(dict.fromkeys(Path(folder).resolve() for folder in folders))
    runs: dict[str, Run] = {}
    judged: dict[str, Path] = {}
    seen: set[Path] = set()
    for root in roots:
        for path in _folders_below(root):
            if path in seen:
                continue
            seen.add(path)
            if is_run(path):
                name = _unique_name(path, root, runs)
                runs[name] = Run(name, RunPaths(path))
            elif (report := path / RunPaths(path).report(IOI).name).is_file():
                judged[_unique_name(path, root, judged)] = report
    return Workspace(roots, dict(sorted(runs.items())), dict(sorted(judged.items())))


def _unique_name(path: Path, root: Path, taken: Collection[str]) -> str:
    """`demo` for `root`/demo; where another folder has a `demo` too, more of the path, then a number."""
    short = path.name if path == root else path.relative_to(root).as_posix()
    names = [short, f"{root.parent.name if path == root else root.name}/{short}"]
    numbered = (f"{short} ({number})" for number in itertools.count(2))
    return next(name for name in itertools.chain(names, numbered) if name not in taken)


def is_run(path: Path) -> bool:
    """Does `path` hold a run, finished or not? Its settings beside anything a stage has written."""
    paths = RunPaths(path)
    made = (paths.dictionary, paths.metrics, paths.checkpoints, paths.features)
    return any(item.exists() for item in made) and not path.name.startswith(".")


def _folders_below(root: Path) -> Iterator[Path]:
    """Breadth first, not into runs, hidden folders, or links, which could lead out of `root`."""
    level, visited = [root], 0
    for _ in range(SEARCH_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            visited += 1
            if visited > FOLDERS_VISITED:
                return
            yield folder
            if not is_run(folder):
                below += _subfolders(folder)
        level = below


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
    except OSError:  # a folder that vanished or may not be read holds no runs for us
        return []
    return [folder / name for name in sorted(names)]
