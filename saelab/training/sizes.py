"""How large trainings are, on disk and in memory."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from saelab.activations.source import ActivationPass
from saelab.errors import UserError
from saelab.models import Site
from saelab.training import checkpoint
from saelab.training.config import TrainConfig
from saelab.training.passes import MemberT, SharedPass

STATISTICS_BYTES = 64  # per latent: what a checkpoint remembers of it beside weights and moments


@dataclass(frozen=True)
class Size:
    """Of one training; bytes are upper bounds."""

    parameters: int
    """Numbers in W_enc, W_dec, b_enc and b_dec."""
    disk_bytes: int
    """Checkpoints (weights, Adam's two moments), one more being written, and the dictionary."""
    kept_bytes: int
    """In memory from step to step: weights and moments."""
    step_bytes: int
    """In memory during a step, beside that: as much as whole gradients and two tables of scores would take."""

    @classmethod
    def of(cls, config: TrainConfig, d_in: int, d_out: int) -> Size:
        d_sae = config.sae.d_sae
        parameters = d_sae * (d_in + d_out) + d_sae + d_out
        weights, statistics = 4 * parameters, STATISTICS_BYTES * d_sae
        return cls(
            parameters,
            disk_bytes=(checkpoint.KEEP + 1) * (3 * weights + statistics) + weights,
            kept_bytes=3 * weights + statistics,
            step_bytes=weights + 2 * 4 * config.batch * d_sae,
        )


def sizes_in(shared: SharedPass[MemberT], source: ActivationPass) -> list[Size]:
    """Of each member."""
    feeds = [shared.feed(member) for member in shared.members]
    return [
        Size.of(member.config, source.d_in(feed), source.d_out(feed))
        for member, feed in zip(shared.members, feeds, strict=True)
    ]


def memory_of(shared: SharedPass[MemberT], source: ActivationPass) -> int:
    """Bytes that a pass holds at once: all its trainings, one step, and the buffer; the language model comes on top."""
    sizes = sizes_in(shared, source)
    return sum(size.kept_bytes for size in sizes) + max(size.step_bytes for size in sizes) + _buffer(shared, source)


def require_memory(shared: SharedPass[MemberT], source: ActivationPass) -> None:
    """Refuse trainings that can't be in memory at once but could be one after another."""
    needed, present = memory_of(shared, source), memory_present(source.device)
    if needed > present and len(shared.members) > 1:
        raise UserError(
            f"{len(shared.members)} runs at once need {needed / 1e9:.1f} GB of memory and there are "
            f"{present / 1e9:.1f} GB; give --together with a smaller number"
        )


def memory_present(device: torch.device) -> int:
    """Bytes of memory where training happens: the GPU's, or the machine's."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else psutil.virtual_memory().total


def _buffer(shared: SharedPass[MemberT], source: ActivationPass) -> int:
    widths: dict[Site, int] = {}
    for number, feed in enumerate(source.feeds):
        widths |= {feed.site: source.d_in(number)}
        widths |= dict(zip(feed.targets, source.target_widths(number), strict=True))
    columns = {column for feed in source.feeds for column in feed.columns}
    return 4 * sum(widths[column.site] for column in columns) * shared.config.buffer
