"""What follows a command: run directories, a config file and `--key value` settings, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter

from saelab.disk import bundled
from saelab.errors import UserError

if TYPE_CHECKING:
    from saelab.config import Config

ConfigT = TypeVar("ConfigT", bound="Config")

Word = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]
"""One word behind a command that is none of its own options."""


@dataclass(frozen=True)
class Arguments:
    """The words behind a stage's command, sorted."""

    runs: tuple[str, ...]
    file: Path | None
    settings: dict[str, str]

    def load(self, cls: type[ConfigT], **given: Any) -> ConfigT:
        """The stage's settings: defaults < file < `--key value` < `given` (None means not given)."""
        from saelab.config import load_config

        overrides = self.settings | {key: value for key, value in given.items() if value is not None}
        return load_config(cls, self.file, overrides)

    def values(self) -> dict[str, Any]:
        """The settings as they are written, lists in place of single values included."""
        from saelab.config import read_settings

        return read_settings(self.file, self.settings)


def parse(words: Sequence[str], takes_runs: bool = False) -> Arguments:
    """Sort words: `["run.yaml", "--sae.k", "64", "--lr=1e-3", "--compile"]` → file `run.yaml` and settings
    `{"sae.k": "64", "lr": "1e-3", "compile": "true"}`.

    Dashes inside a key are underscores (`--top-examples`); a setting without a value is switched on. With `takes_runs`
    words that do not end in .yaml or .json are run directories.

    Raises:
        UserError: a word too many, or a setting without a name.
    """
    plain, settings = _split(words)
    files = [word for word in plain if not takes_runs or Path(word).suffix in {".yaml", ".yml", ".json"}]
    if len(files) > 1:
        raise UserError(f"{files[1]!r} is one word too many: give one config file, and settings as --key value")
    runs = tuple(word for word in plain if word not in files)
    return Arguments(runs, _config_file(files[0]) if files else None, settings)


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    plain: list[str] = []
    settings: dict[str, str] = {}
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("--"):
            plain.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        if not key:
            raise UserError(f"{word!r} is not a setting; write --key value")
        if not equals:
            value = remaining.pop(0) if remaining and not remaining[0].startswith("--") else "true"
        settings[key.replace("-", "_")] = value
    return plain, settings


def _config_file(word: str) -> Path:
    """The file itself, or the one of that name that travels with saelab (`configs/demo.yaml` works in any folder)."""
    path = Path(word)
    travels = path.parts[:1] == ("configs",) and not path.exists() and bundled(word).is_file()
    return bundled(word) if travels else path
