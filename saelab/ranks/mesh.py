"""`Mesh`: the ranks of a job as a grid, data × latent, and who exchanges tensors with whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from saelab.errors import UserError
from saelab.ranks.axis import Axis
from saelab.ranks.ranks import Ranks

PATIENCE_S = 3600.0  # the ranks look after one another themselves; torch's own clock is the last resort


class Mesh:
    """Where this rank stands: rank r has data index r // latent and latent index r % latent.

    Ranks with the same latent index hold the same latents and slices of one batch: they meet on `data`. Ranks with the
    same data index hold the same tokens and shards of the latents: they meet on `latent`. `world` is everybody.
    `Mesh()` is one process alone; its exchanges give back what they are given, at no cost.

    Attributes:
        received: bytes that this rank received, by purpose.
    """

    def __init__(self) -> None:
        self.ranks = Ranks()
        self.received: Counter[str] = Counter()
        self.data = self.latent = self.world = Axis(received=self.received)


@contextmanager
def meshed(ranks: Ranks, data: int, latent: int, device: torch.device | str = "cpu") -> Iterator[Mesh]:
    """The grid of these ranks; process groups live as long as the context does.

    Raises:
        UserError: data × latent is not the number of ranks, or the device can't exchange tensors.
    """
    if data * latent != ranks.size:
        raise UserError(
            f"parallel.data = {data} times parallel.latent = {latent} is {data * latent}, but there are "
            f"{ranks.size} ranks; torchrun --nproc-per-node sets their number"
        )
    mesh = Mesh()
    mesh.ranks = ranks
    if ranks.size == 1:
        yield mesh
        return
    place = torch.device(device)
    kind = place.type
    if kind not in ("cpu", "cuda"):
        raise UserError(f"several ranks exchange tensors on CPUs or NVIDIA GPUs, not on device {str(place)!r}")
    if kind == "cuda":  # before NCCL is there: it takes the device that is current
        torch.cuda.set_device(ranks.local_rank if place.index is None else place.index)
    ranks.begin_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo", timedelta(seconds=PATIENCE_S))
    try:
        grid = init_device_mesh(kind, (data, latent), mesh_dim_names=("data", "latent"))
        row, column = divmod(ranks.rank, latent)

        def axis(index: int, size: int, group: dist.ProcessGroup | None) -> Axis:
            return Axis(index, size, group, mesh.received, ranks.exchanging)

        mesh.data = axis(row, data, grid.get_group("data"))
        mesh.latent = axis(column, latent, grid.get_group("latent"))
        mesh.world = axis(ranks.rank, ranks.size, dist.group.WORLD)
        yield mesh
    except BaseException:
        if kind == "cpu":  # closes connections, so that others notice; NCCL might wait for ever, and the end is near
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
