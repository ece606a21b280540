"""What a harvest will take: worked out before anything is written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from saelab.activations.columns import Column
from saelab.activations.config import HarvestConfig
from saelab.activations.forward import Forward
from saelab.activations.memory import TOKEN_BYTES, Memory, memory_of
from saelab.activations.sites import expand_sites, last_layer
from saelab.activations.stored import row_bytes, storage_type
from saelab.activations.subsample import most_drawn
from saelab.corpora.packing import pack
from saelab.corpora.rows import TokenRows
from saelab.disk import require_free_space
from saelab.models import LanguageModel, Site
from saelab.progress import si


@dataclass(frozen=True)
class HarvestPlan:
    """Sizes are upper bounds: a corpus may end earlier, and excluded tokens have no activations."""

    sites: dict[Site, int]
    """Site → width."""
    tokens: int
    rows: int
    shards: int
    stored: int
    """Tokens whose activations are stored, at most."""
    disk_bytes: int
    free_bytes: int
    memory: Memory
    tokens_per_second: float | None
    """Measured on the first rows of the corpus; None when it was not measured."""

    @property
    def seconds(self) -> float | None:
        """Expected time."""
        return self.tokens / self.tokens_per_second if self.tokens_per_second else None

    def lines(self) -> list[str]:
        """The plan as people read it."""
        widths = ", ".join(f"{site} ({width} wide)" for site, width in self.sites.items())
        drawn = f", {si(self.stored)} of them drawn to be stored" if self.stored < self.tokens else ""
        lines = [
            f"sites   {widths}",
            f"tokens  {si(self.tokens)} in {self.rows} rows, {self.shards} shards{drawn}",
            f"disk    {self.disk_bytes / 1e9:.2f} GB of {self.free_bytes / 1e9:.2f} GB free",
            f"memory  {self.memory.line()}",
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
    columns = columns_of(sites, config)
    forward = Forward(model, config.policy, columns)
    first = next(pack(config.corpus, forward.tokenizer, config.policy, rows=min(config.batch, config.rows)))
    tokens = config.rows * config.policy.context
    stored = most_drawn(tokens, config.subsample)
    sizes = [row_bytes(model.width(c.site), storage_type(config.dtype, c.gradient)) for c in columns]
    return HarvestPlan(
        sites={site: model.width(site) for site in sites},
        tokens=tokens,
        rows=config.rows,
        shards=-(-config.rows // config.shard_rows),
        stored=stored,
        disk_bytes=stored * sum(sizes) + tokens * TOKEN_BYTES,
        free_bytes=free_bytes(out),
        memory=memory_of(config, model, sites, sizes),
        tokens_per_second=_rate(forward, first) if measure else None,
    )


def columns_of(sites: Iterable[Site], config: HarvestConfig) -> list[Column]:
    """What is stored: activations of all sites, and then their gradients if the settings ask for them."""
    return [Column(site, gradient) for gradient in (False, True)[: 1 + config.gradients] for site in sites]


def refuse_if_too_large(plan: HarvestPlan, written: int, out: Path) -> None:
    """Raise UserError when what is still to be written exceeds the free disk, or memory is too small."""
    require_free_space(out, max(plan.disk_bytes - written, 0), f"harvest into {out}")
    plan.memory.refuse()


def load_model(config: HarvestConfig) -> LanguageModel:
    """The model that the settings name, without the blocks behind the last site where nothing asks for the loss."""
    sites = config.sites if config.policy.sink_site is None else (*config.sites, config.policy.sink_site)
    return LanguageModel.load(
        config.model, dtype=config.model_dtype, device=config.device, revision=config.model_revision,
        device_map=config.device_map, attn_implementation=config.attn_implementation,
        up_to=None if config.gradients else last_layer(sites),
    )  # fmt: skip


def free_bytes(out: Path) -> int:
    """Free disk where `out` lies or will lie."""
    existing = Path(out).absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def _rate(forward: Forward, rows: TokenRows) -> float:
    forward(rows)  # the first pass pays for allocations
    started = time.perf_counter()
    _, kept = forward(rows)
    next(iter(kept.values())).sum().item()  # wait for the device
    return rows.ids.numel() / (time.perf_counter() - started)
