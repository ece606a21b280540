"""What a harvest will take: worked out before anything is written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from saelab.activations.columns import Column
from saelab.activations.config import HarvestConfig, StorageType
from saelab.activations.forward import Forward
from saelab.activations.sites import expand_sites
from saelab.corpora.packing import TokenRows, pack
from saelab.disk import require_free_space
from saelab.models import LanguageModel, Site
from saelab.progress import si

TORCH_TYPES: dict[StorageType, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOKEN_BYTES = 21  # id 4, document 8, position 4, row 4, keep 1


@dataclass(frozen=True)
class HarvestPlan:
    """Sizes are upper bounds: a corpus may end earlier, and excluded tokens have no activations."""

    sites: dict[Site, int]
    """Site → width."""
    tokens: int
    rows: int
    shards: int
    disk_bytes: int
    free_bytes: int
    memory_bytes: int
    """Buffers of one shard while it is written; the model comes on top."""
    tokens_per_second: float | None
    """Measured on the first rows of the corpus; None when it was not measured."""

    @property
    def seconds(self) -> float | None:
        """Expected time."""
        return self.tokens / self.tokens_per_second if self.tokens_per_second else None

    def lines(self) -> list[str]:
        """The plan as people read it."""
        widths = ", ".join(f"{site} ({width} wide)" for site, width in self.sites.items())
        lines = [
            f"sites   {widths}",
            f"tokens  {si(self.tokens)} in {self.rows} rows, {self.shards} shards",
            f"disk    {self.disk_bytes / 1e9:.2f} GB of {self.free_bytes / 1e9:.2f} GB free",
            f"memory  {self.memory_bytes / 1e9:.2f} GB beside the model",
        ]
        if self.tokens_per_second and self.seconds:
            lines.append(f"time    {self.seconds / 60:.1f} min at {si(self.tokens_per_second)} tokens/s")
        return lines


def plan(config: HarvestConfig, out: Path, model: LanguageModel | None = None, measure: bool = False) -> HarvestPlan:
    """Tokens, bytes, memory, free disk and (with `measure`, which runs two forward passes) time. Writes nothing.

    Raises:
        UserError: a site that isn't in the model, rows too long for it, no tokenizer, or a corpus that can't be read or
            has not one row.
    """
    model = model or load_model(config)
    sites = expand_sites(config.sites, model)
    forward = Forward(model, config.policy, columns_of(sites, config))
    first = next(pack(config.corpus, forward.tokenizer, config.policy, rows=min(config.batch, config.rows)))
    tokens = config.rows * config.policy.context
    shard_tokens = min(config.shard_rows, config.rows) * config.policy.context
    per_token = sum(model.width(site) * _bytes_per_value(config) for site in sites)
    return HarvestPlan(
        sites={site: model.width(site) for site in sites},
        tokens=tokens,
        rows=config.rows,
        shards=-(-config.rows // config.shard_rows),
        disk_bytes=tokens * (per_token + TOKEN_BYTES),
        free_bytes=free_bytes(out),
        # The largest site once more, and once more again: safetensors copies a tensor to write it, twice.
        memory_bytes=shard_tokens * (per_token + TOKEN_BYTES + 2 * max(map(model.width, sites)) * 4),
        tokens_per_second=_rate(forward, first) if measure else None,
    )


def columns_of(sites: Iterable[Site], config: HarvestConfig) -> list[Column]:
    """What is stored: activations of all sites, and then their gradients if the settings ask for them."""
    return [Column(site, gradient) for gradient in (False, True)[: 1 + config.gradients] for site in sites]


def refuse_if_too_large(plan: HarvestPlan, written: int, out: Path) -> None:
    """Raise UserError when what is still to be written exceeds the free disk."""
    require_free_space(out, max(plan.disk_bytes - written, 0), f"harvest into {out}")


def load_model(config: HarvestConfig) -> LanguageModel:
    """The model that the settings name."""
    return LanguageModel.load(
        config.model, dtype=config.model_dtype, device=config.device, revision=config.model_revision
    )


def gradient_type(dtype: StorageType) -> torch.dtype:
    """How gradients are stored: bf16 instead of fp16, since they are smaller than fp16 reaches."""
    return torch.bfloat16 if dtype == "fp16" else TORCH_TYPES[dtype]


def free_bytes(out: Path) -> int:
    """Free disk where `out` lies or will lie."""
    existing = Path(out).absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def _bytes_per_value(config: HarvestConfig) -> int:
    gradient = gradient_type(config.dtype).itemsize if config.gradients else 0
    return TORCH_TYPES[config.dtype].itemsize + gradient


def _rate(forward: Forward, rows: TokenRows) -> float:
    forward(rows)  # the first pass pays for allocations
    started = time.perf_counter()
    kept = forward(rows)
    next(iter(kept.values())).sum().item()  # wait for the device
    return rows.ids.numel() / (time.perf_counter() - started)
