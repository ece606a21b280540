"""Which text: the settings of a corpus."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from saelab.config import Config

MICROWORLD = "microworld"
IOI = "ioi"
GENERATED = (MICROWORLD, IOI)
"""Sources that never end, whose tokens are labelled, and whose splits are two worlds: other names, places, objects."""
DEMO = "demo"
HUB_PREFIX = "hf:"
STANDARD_INPUT = "stdin"

Split = Literal["train", "test"]


class CorpusConfig(Config):
    """Where documents come from, and which part of them is looked at."""

    source: str = MICROWORLD
    """microworld, ioi, demo, a file or folder, hf:NAME, or stdin. "microworld" is endless and labelled; "ioi" is of it
    the prompts of indirect object identification with their answers alone; "demo" are the bundled stories. Files are
    .txt or .jsonl, also .gz or .zst, and .parquet. "hf:NAME" is a Hugging Face dataset on the Hub or a local folder.
    "stdin" is plain text that is piped in ("stdin.jsonl" and so on: read as a file whose name ends like this)."""

    split: Split = "train"
    """"train" or "test": a fixed share of the documents is held out for evaluation and never trained on."""

    seed: int = Field(default=0, ge=0)
    """Seed of the text of microworld and ioi, and of the choice of held-out documents."""

    held_out: float = Field(default=0.05, gt=0, lt=1)
    """Share of the documents that is held out (microworld and ioi have a held-out world of their own)."""

    column: str = Field(default="text", min_length=1)
    """Field of JSONL, Parquet and Hugging Face rows that holds the text."""

    dataset_config: str | None = None
    """Configuration (subset) of a Hugging Face dataset."""

    dataset_split: str = "train"
    """Split of a Hugging Face dataset to read; `split` then divides its documents once more."""

    dataset_revision: str | None = None
    """Branch, tag or commit of a Hugging Face dataset."""

    dataset_streaming: bool = True
    """Read a Hugging Face dataset as it arrives. False: download it first; then work that stopped goes on at once."""

    @model_validator(mode="after")
    def _dataset_keys_need_a_dataset(self) -> CorpusConfig:
        if not self.source.strip():
            raise ValueError("source must name a corpus: microworld, ioi, demo, a path, hf:NAME, or stdin")
        if not self.source.startswith(HUB_PREFIX):
            for key in ("dataset_config", "dataset_split", "dataset_revision", "dataset_streaming"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} belongs to a Hugging Face dataset (source: hf:NAME), not {self.source!r}")
        return self

    @property
    def is_standard_input(self) -> bool:
        """Whether the text is piped in."""
        return self.source == STANDARD_INPUT or self.source.startswith(f"{STANDARD_INPUT}.")

    def of_split(self, split: Split) -> CorpusConfig:
        """The same corpus, seen through another split."""
        return self.model_copy(update={"split": split})
