"""`Ledger`: which shards of a directory are there, and where in the text each begins.

While a harvest goes on, whoever has finished a shard writes its entry into `entries/`. In the end one process gathers
the entries into the manifest. So a process that is killed takes nothing with it, and any number of them may write.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from saelab.activations.manifest import (
    CorpusPlace,
    Damage,
    Manifest,
    ShardEntry,
    damage,
)
from saelab.config import Config, build
from saelab.disk import ActivationPaths, read_json, write_json


class FinishedShard(Config):
    """What `entries/NNNNN.json` holds."""

    shard: ShardEntry
    """Its entry in the manifest to come."""
    next: CorpusPlace
    """Where the row after it begins."""


class Ledger:
    """The shards that the manifest lists, and over them those of `entries/`."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.paths = ActivationPaths(self.directory)
        self.manifest = Manifest.load(self.directory)
        self.shards: dict[int, ShardEntry] = dict(enumerate(self.manifest.shards))
        self.ends = {len(self.shards) - 1: self.manifest.next}  # without shards: the text's beginning
        self.waiting = sorted(int(path.stem) for path in self.paths.entries.glob("[0-9]*.json"))
        for number in self.waiting:
            path = self.paths.entry(number)
            finished = build(FinishedShard, read_json(path), where=str(path))
            self.shards[number], self.ends[number] = finished.shard, finished.next

    @property
    def starts(self) -> dict[int, CorpusPlace]:
        """Where shards begin, as far as it is known."""
        after = {number + 1: place for number, place in self.ends.items()}
        return after | {number: shard.start for number, shard in self.shards.items()}

    @property
    def n_tokens(self) -> int:
        """Tokens in all finished shards."""
        return sum(shard.rows for shard in self.shards.values()) * self.manifest.config.policy.context

    @property
    def n_kept(self) -> int:
        """Those that are stored."""
        return sum(shard.kept for shard in self.shards.values())

    def damage(self, checksums: bool = False) -> list[Damage]:
        """As `saelab.activations.manifest.damage`, of all finished shards."""
        return damage(dict(sorted(self.shards.items())), self.directory, checksums)

    @property
    def onwards(self) -> int | None:
        """Number from which on no shard is there; None when the harvest is finished."""
        return None if self.manifest.finished else max(self.shards, default=-1) + 1

    def absent(self) -> list[int]:
        """Numbers of shards that are not there although later ones are."""
        return [number for number in range(max(self.shards, default=0)) if number not in self.shards]

    def bytes(self) -> int:
        """Size of the finished shards' files that are there."""
        paths = (self.directory / name for shard in self.shards.values() for name in shard.files)
        return sum(path.stat().st_size for path in paths if path.is_file())

    def put(self, number: int, finished: FinishedShard) -> None:
        """Write a shard's entry: from now on it counts."""
        write_json(self.paths.entry(number), finished.model_dump(mode="json"))

    def clear_entries(self) -> None:
        """Forget what no manifest lists."""
        shutil.rmtree(self.paths.entries, ignore_errors=True)
