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

Split = Literal["train", "test"]


class CorpusConfig(Config):
    """Where documents come from, and which part of them is looked at."""

    source: str = MICROWORLD
    """"microworld" (endless, labelled), "ioi" (of it, prompts of indirect object identification with their answers
    alone), "demo" (bundled stories), a file or folder (.txt, .jsonl, also .gz or .zst; .parquet), or "hf:NAME" for a
    Hugging Face dataset."""

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

    @model_validator(mode="after")
    def _dataset_keys_need_a_dataset(self) -> CorpusConfig:
        if not self.source.strip():
            raise ValueError("source must name a corpus: microworld, ioi, demo, a path, or hf:NAME")
        if not self.source.startswith(HUB_PREFIX):
            for key in ("dataset_config", "dataset_split", "dataset_revision"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} belongs to a Hugging Face dataset (source: hf:NAME), not {self.source!r}")
        return self

    def of_split(self, split: Split) -> CorpusConfig:
        """The same corpus, seen through another split."""
        return self.model_copy(update={"split": split})
