"""`manifest.json`: what a directory of activations holds. `docs/protocol.md` is the normative text."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from saelab.activations.config import HarvestConfig
from saelab.config import Config, build
from saelab.disk import ActivationPaths, is_whole, read_json, sha256, write_json
from saelab.errors import UserError
from saelab.progress import track

SCHEMA_VERSION = 2
READABLE = (1, 2)


class CorpusPlace(Config):
    """Where in the corpus a row begins (`corpora.Cursor` of the first epoch)."""

    document: int
    """Number of the document in its source."""
    token: int
    """Tokens of it, separator included, in earlier rows."""
    row: int
    """Rows before."""


class ShardEntry(Config):
    """One finished shard."""

    rows: int
    """Rows of `policy.context` tokens."""
    kept: int
    """Tokens that the policy keeps: rows of every `x` and `grad` tensor."""
    start: CorpusPlace
    """Where its first row begins, so that it can be made again alone."""
    files: dict[str, str]
    """Relative path → SHA-256 of the file."""
    excluded: dict[str, int] = Field(default_factory=dict)
    """Tokens that are not stored, by reason."""
    dropped: int = 0
    """Tokens of text, from the shard's first row to the next shard's, that no row holds."""
    squares: dict[str, float] = Field(default_factory=dict)
    """Site → Σ |x|² of the values as stored."""
    rounding: float | None = None
    """Of a shard that was made again by a machine that rounds differently: the largest relative difference found."""


class SiteEntry(Config):
    """One site; the statistics are over all kept tokens, as stored, and null until the harvest is finished."""

    width: int
    """Length of the activation vector."""
    scale: float | None
    """sqrt(width / E|x|²): multiplying by it gives E|x|² = width."""
    mean: list[float] | None
    """E[x]."""
    storage_error: float | None = None
    """Σ |x − stored|² / Σ |x|²: what storing took away."""


class Manifest(Config):
    """Contents of a directory of activations. Only what it lists is there; only a finished one is read."""

    schema_version: int = SCHEMA_VERSION
    """Version of the directory format."""
    kind: Literal["activations"] = "activations"
    """What the directory is."""
    saelab_version: str
    """Version that began the harvest."""
    finished: bool
    """Whether all shards are there."""
    model: str
    """Name or folder that was loaded."""
    model_revision: str | None
    """Commit on the Hub; null for a folder."""
    model_fingerprint: str
    """SHA-256 of the model's configuration and weights."""
    tokenizer_fingerprint: str
    """SHA-256 of the tokenizer."""
    config: HarvestConfig
    """Complete settings: corpus, token policy, storage type, …"""
    sites: dict[str, SiteEntry]
    """In forward order."""
    n_tokens: int = Field(ge=0)
    """Tokens in all finished shards."""
    n_kept: int = Field(ge=0)
    """Those that the policy keeps."""
    next: CorpusPlace
    """Where the row after the last shard begins."""
    left_over: int | None = None
    """Tokens of text behind the last row of a corpus that ended; null when it was not read to its end."""
    shards: list[ShardEntry]
    """All shards in order; none until the harvest is finished."""

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Read and check a directory's manifest, finished or not."""
        path = ActivationPaths(Path(directory)).manifest
        if not path.exists():
            raise UserError(
                f"{directory} is no directory of activations: no {path.name} in it (saelab harvest makes one)"
            )
        content = read_json(path)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise UserError(f"{path} has schema version {version}; this saelab reads versions {known}")
        return build(cls, content, where=str(path))

    def save(self, directory: Path) -> None:
        """Write to the directory, atomically."""
        write_json(ActivationPaths(directory).manifest, self.model_dump(mode="json"))

    def damage(self, directory: Path, checksums: bool = True) -> list[Damage]:
        """As `damage` below, of all listed shards."""
        return damage(dict(enumerate(self.shards)), directory, checksums)


class Damage(NamedTuple):
    """A listed file that is not as it was written."""

    shard: int
    file: str
    """Relative path."""
    what: str
    """is missing, has the wrong length, is damaged."""

    def __str__(self) -> str:
        return f"shard {self.shard}: {self.file} {self.what}"


def damage(shards: Mapping[int, ShardEntry], directory: Path, checksums: bool = True) -> list[Damage]:
    """Files of shards that are missing, have the wrong length or, with `checksums`, not the bytes that were written."""
    with track(len(shards), "verify", unit="shards") if checksums else nullcontext() as bar:
        found: list[Damage] = []
        for number, shard in shards.items():
            found += damage_of(number, shard, directory, checksums)
            if bar is not None:
                bar.advance(1)
    return found


def damage_of(number: int, shard: ShardEntry, directory: Path, checksums: bool = True) -> list[Damage]:
    """The same of one shard."""
    told = (
        (name, _wrong_with(directory / name, digest if checksums else None)) for name, digest in shard.files.items()
    )
    return [Damage(number, name, what) for name, what in told if what]


def _wrong_with(path: Path, digest: str | None) -> str:
    if not path.is_file():
        return "is missing"
    if not is_whole(path):
        return "has the wrong length"
    return "is damaged" if digest is not None and sha256(path) != digest else ""


def how_to_repair(directory: Path) -> str:
    """What to type when files of a directory are missing or damaged."""
    return f"`saelab harvest --out {shlex.quote(str(directory))} --repair` makes their shards again"
