"""Settings of `saelab harvest`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from saelab.config import Config, Count
from saelab.corpora.config import CorpusConfig
from saelab.corpora.policy import TokenPolicy

StorageType = Literal["fp32", "bf16", "fp16", "int8"]


class HarvestConfig(Config):
    """Activations of one or many sites, from one pass of the model over the text."""

    model: str = "demo"
    """Hugging Face name, local folder, or "demo" for the bundled model."""

    model_revision: str | None = None
    """Branch, tag or commit of a model on the Hugging Face Hub."""

    model_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision that the model runs in."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    device_map: Literal["auto", "balanced", "sequential"] | None = None
    """Spread a model that one device can't hold over GPUs, memory and disk, as transformers does; device then has no
    meaning."""

    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    """How the model computes attention; auto is the library's choice for the architecture."""

    sites: tuple[str, ...] = Field(default=("blocks.2.resid_post",), min_length=1)
    """Where in the model: blocks.LAYER.KIND, blocks.LAYER.attn.z.head3, …; * stands for every layer or head."""

    gradients: bool = False
    """Store the gradient of the model's loss at each site too (twice the disk, about three times the time)."""

    corpus: CorpusConfig = CorpusConfig()
    """Which text."""

    policy: TokenPolicy = TokenPolicy()
    """How text becomes rows of tokens, and which tokens are left out."""

    tokens: Count = Field(default=1_000_000, gt=0)
    """Tokens to read, in whole rows, excluded ones counted; a corpus that has fewer is read once."""

    dtype: StorageType = "bf16"
    """How activations are stored: fp32, bf16 (any range, 3 digits), fp16 (up to 65504, 4 digits) or int8 (a scale for
    each token)."""

    subsample: float = Field(default=1.0, gt=0, le=1)
    """Share of the kept tokens whose activations are stored, drawn token by token."""

    shard_tokens: Count = Field(default=131_072, gt=0)
    """Tokens in one shard: what an interruption can cost, and what is held in memory at each site."""

    batch: int = Field(default=16, gt=0)
    """Rows in one forward pass."""

    @property
    def rows(self) -> int:
        """Rows to read."""
        return -(-self.tokens // self.policy.context)

    @property
    def shard_rows(self) -> int:
        """Rows in one shard: whole forward passes, so that a shard made again has the same bytes."""
        return max(1, self.shard_tokens // (self.policy.context * self.batch)) * self.batch
