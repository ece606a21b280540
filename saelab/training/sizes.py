"""How large trainings are, on disk and in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from saelab.activations.source import ActivationPass
from saelab.errors import UserError
from saelab.models import Site
from saelab.ranks import Ranks
from saelab.training import checkpoint
from saelab.training.config import TrainConfig
from saelab.training.parallel import Layout
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
    """In a rank's memory from step to step: weights and moments."""
    step_bytes: int
    """In a rank's memory during a step, beside that: as much as whole gradients and two tables of scores would take."""

    @classmethod
    def of(cls, config: TrainConfig, d_in: int, d_out: int, layout: Layout = Layout()) -> Size:  # noqa: B008 (a tuple)
        def numbers(latents: int) -> int:
            return latents * (d_in + d_out) + latents + d_out

        d_sae = config.sae.d_sae
        shard, tokens = -(-d_sae // layout.latent), -(-config.batch // layout.data)
        weights = 4 * numbers(d_sae)
        return cls(
            numbers(d_sae),
            disk_bytes=(checkpoint.KEEP + 1) * (3 * weights + STATISTICS_BYTES * d_sae) + weights,
            kept_bytes=3 * 4 * numbers(shard) + STATISTICS_BYTES * shard,
            step_bytes=4 * numbers(shard) + 2 * 4 * tokens * shard,
        )


def sizes_in(
    shared: SharedPass[MemberT],
    source: ActivationPass,
    members: Sequence[MemberT] | None = None,
    layout: Layout = Layout(),  # noqa: B008 (a tuple)
) -> list[Size]:
    """Of each member, or of some."""
    some = shared.members if members is None else members
    feeds = [shared.feed(member) for member in some]
    return [
        Size.of(member.config, source.d_in(feed), source.d_out(feed), layout)
        for member, feed in zip(some, feeds, strict=True)
    ]


def memory_of(
    shared: SharedPass[MemberT],
    source: ActivationPass,
    members: Sequence[MemberT] | None = None,
    layout: Layout = Layout(),  # noqa: B008 (a tuple)
) -> int:
    """Bytes that a rank holds at once: the trainings of a pass (or those of them that are its own), one step, and the
    buffer; the language model comes on top."""
    sizes = sizes_in(shared, source, members, layout)
    trained = sum(size.kept_bytes for size in sizes) + max((size.step_bytes for size in sizes), default=0)
    return trained + _buffer(shared, source)


def require_memory(
    shared: SharedPass[MemberT],
    source: ActivationPass,
    members: Sequence[MemberT],
    layout: Layout,
    ranks: Ranks,
) -> None:
    """Refuse trainings that can't be in a process's memory at once but could be one after another."""
    needed, present = memory_of(shared, source, members, layout), memory_present(source.device, ranks.here)
    if needed > present and len(members) > 1:
        raise UserError(
            f"{len(members)} runs at once need {needed / 1e9:.1f} GB of memory and there are "
            f"{present / 1e9:.1f} GB; give --together with a smaller number"
        )


def memory_present(device: torch.device, sharing: int = 1) -> int:
    """Bytes of memory where training happens: the GPU's, or what each of `sharing` processes has of the machine's."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else psutil.virtual_memory().total // sharing


def _buffer(shared: SharedPass[MemberT], source: ActivationPass) -> int:
    widths: dict[Site, int] = {}
    for number, feed in enumerate(source.feeds):
        widths |= {feed.site: source.d_in(number)}
        widths |= dict(zip(feed.targets, source.target_widths(number), strict=True))
    columns = {column for feed in source.feeds for column in feed.columns}
    return 4 * sum(widths[column.site] for column in columns) * shared.config.buffer
