"""Names: where every artifact lies. No other module spells a file name of the road."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def bundled(name: str) -> Path:
    """Path of something that travels with saelab ("app", "configs", "artifacts/demo-model"): checkout or wheel.

    A wheel carries these folders inside the package; a checkout has them at its top level. The path may not exist.
    """
    inside = _PACKAGE / "_bundle" / name
    return inside if inside.exists() else _PACKAGE.parent / name


@dataclass(frozen=True)
class RunPaths:
    """Everything about one dictionary: `runs/<name>/`."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:09d}"

    @property
    def dictionary(self) -> Path:
        return self.root / "dictionary"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    def report(self, suite: str) -> Path:
        return self.evaluation / f"{suite}.json"

    def documents(self, suite: str) -> Path:
        """The sums behind a report's numbers, document by document."""
        return self.evaluation / f"{suite}-documents.safetensors"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def notes(self) -> Path:
        """Names and notes that people gave to latents; it moves with the run."""
        return self.root / "notes.sqlite"

    @property
    def pulled(self) -> Path:
        """Where it came from; only of a run that `saelab pull` made."""
        return self.root / "pulled.json"


@dataclass(frozen=True)
class ActivationPaths:
    """A directory of harvested activations: `activations/<name>/`."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def entries(self) -> Path:
        """Finished shards that the manifest does not list yet."""
        return self.root / "entries"

    def entry(self, shard: int) -> Path:
        return self.entries / f"{shard:05d}.json"

    def staging(self, shard: int) -> Path:
        """Where a damaged shard is made again."""
        return self.root / f".shard-{shard:05d}.partial"

    def tokens(self, shard: int) -> Path:
        return self.root / f"tokens-{shard:05d}.safetensors"

    def activations(self, site: str, shard: int) -> Path:
        return self.root / site / f"x-{shard:05d}.safetensors"

    def gradients(self, site: str, shard: int) -> Path:
        return self.root / site / f"grad-{shard:05d}.safetensors"


@dataclass(frozen=True)
class DictionaryPaths:
    """A finished dictionary: `dictionary/`."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def weights(self) -> Path:
        return self.root / "dictionary.safetensors"

    @property
    def golden(self) -> Path:
        return self.root / "golden.safetensors"

    @property
    def trained_thresholds(self) -> Path:
        """Only where `saelab calibrate` has changed them."""
        return self.root / "trained-thresholds.safetensors"


@dataclass(frozen=True)
class PublishedPaths:
    """A repository: a folder for each dictionary, in which its files and those of its run lie side by side."""

    root: Path

    @property
    def card(self) -> Path:
        return self.root / "README.md"

    @property
    def overview(self) -> Path:
        """Figure of all dictionaries together."""
        return self.root / "sparsity-fidelity.svg"

    def entry(self, id: str) -> Path:
        """`RunPaths` and `DictionaryPaths` name what lies in it."""
        return self.root / id

    def publication(self, id: str) -> Path:
        """What was left out or changed on the way out."""
        return self.entry(id) / "publication.json"

    def saelens(self, id: str) -> Path:
        """The copy in SAELens' format."""
        return self.entry(id) / "saelens"

    def figure(self, id: str, name: str) -> Path:
        return self.entry(id) / "figures" / f"{name}.svg"

    def link(self, path: Path) -> str:
        """How the card names one of these."""
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class CheckpointPaths:
    """State of a run at one step: `checkpoints/step-N/`."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def tensors(self) -> Path:
        return self.root / "state.safetensors"
