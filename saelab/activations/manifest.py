"""`manifest.json`: what a directory of activations holds. `docs/protocol.md` is the normative text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from saelab.activations.config import HarvestConfig
from saelab.config import Config, build
from saelab.disk import ActivationPaths, read_json, sha256, write_json
from saelab.errors import UserError

SCHEMA_VERSION = 1


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


class SiteEntry(Config):
    """One site; the statistics are over all kept tokens, as stored, and null until the harvest is finished."""

    width: int
    """Length of the activation vector."""
    scale: float | None
    """sqrt(width / E|x|²): multiplying by it gives E|x|² = width."""
    mean: list[float] | None
    """E[x]."""


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
    shards: list[ShardEntry]
    """Finished shards in order."""

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
        if version != SCHEMA_VERSION:
            raise UserError(f"{path} has schema version {version}; this saelab reads version {SCHEMA_VERSION}")
        return build(cls, content, where=str(path))

    def save(self, directory: Path) -> None:
        """Write to the directory, atomically."""
        write_json(ActivationPaths(directory).manifest, self.model_dump(mode="json"))

    def damage(self, directory: Path, checksums: bool = True) -> list[str]:
        """One line for each listed file that is missing or, with `checksums`, is not the file that was written."""
        lines: list[str] = []
        for number, shard in enumerate(self.shards):
            for name, digest in shard.files.items():
                path = directory / name
                if not path.is_file():
                    lines.append(f"shard {number}: {name} is missing")
                elif checksums and sha256(path) != digest:
                    lines.append(f"shard {number}: {name} is damaged")
        return lines
