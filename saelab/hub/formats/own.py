"""saelab's own format: dictionary.safetensors, config.json and golden.safetensors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from saelab.dictionaries.artifact import load
from saelab.dictionaries.dictionary import Dictionary
from saelab.disk import RunPaths
from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.hub.formats.format import Entry, Imported, beside
from saelab.hub.formats.probes import probes
from saelab.hub.formats.untrusted import MOST_INPUTS, MOST_LATENTS, Settings

GOLDEN_ROWS = 16


@dataclass(frozen=True)
class Own:
    """What `saelab train` writes; nothing is folded, and golden inputs are checked whenever it is read."""

    name: str = "saelab"

    def found(self, names: Collection[str]) -> list[Entry]:
        files = DictionaryPaths(Path())
        return list(beside(names, [str(path) for path in (files.config, files.weights, files.golden)]))

    def recognises(self, folder: Path) -> bool:
        return _dictionary(folder) is not None

    def read(self, folder: Path) -> Imported:
        place = _dictionary(folder)
        if place is None:
            raise UserError(f"{folder} holds no dictionary of saelab")
        settings = Settings.load(DictionaryPaths(place).config)
        settings.integer("d_in", MOST_INPUTS)
        settings.integer("d_sae", MOST_LATENTS)
        return Imported(load(place))

    def write(self, dictionary: Dictionary, folder: Path) -> tuple[str, ...]:
        dictionary.save(folder, probes(dictionary, GOLDEN_ROWS))
        return ()


def _dictionary(folder: Path) -> Path | None:
    """The folder of the dictionary: itself, or that of the run."""
    for place in (folder, RunPaths(folder).dictionary):
        files = DictionaryPaths(place)
        if files.config.is_file() and files.weights.is_file() and "d_sae" in Settings.load(files.config):
            return place
    return None
