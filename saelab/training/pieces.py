"""Which rows of the whole tensors of a training each rank has, and which it writes into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from saelab.disk.together import TensorRows
from saelab.errors import UserError
from saelab.ranks.axis import Axis
from saelab.training.exchange import Exchange

REPLICAS = "replicas"
_WHOLE = ("b_dec", "input_centre")  # weights that have no latents
_STATISTICS = ("idle", "density", "threshold", "threshold_seen")
_MATRICES = ("W_enc", "W_dec")


def is_by_latent(name: str) -> bool:
    """Whether a tensor of `Trainer.state` has a row for each latent, of which a rank has those of its shard."""
    owner, what = name.split(".")[:2]
    return what not in _WHOLE if owner in ("weights", "adam") else owner == "statistics" and what in _STATISTICS


def held(name: str, d_sae: int, exchange: Exchange) -> range:
    """The rows of such a tensor that this rank has."""
    shard = exchange.mesh.latent.part(d_sae)
    own = exchange.summed.part(len(shard)) if _is_moment_of_matrix(name) else range(len(shard))
    return range(shard.start + own.start, shard.start + own.stop)


def own_rows(
    state: Mapping[str, Tensor], d_sae: int, exchange: Exchange, device: torch.device | str
) -> dict[str, Tensor]:
    """Of whole tensors what this rank has of them, copied to `device`."""
    own = {}
    for name, tensor in state.items():
        rows = held(name, d_sae, exchange) if is_by_latent(name) else None
        own[name] = (tensor if rows is None else tensor[rows.start : rows.stop]).to(device, copy=True)
    return own


def pieces(state: Mapping[str, Tensor], d_sae: int, exchange: Exchange) -> dict[str, TensorRows]:
    """What this rank is to write: its part of the rows of its latents; of everything else, all on the first rank."""
    found = {}
    for name, tensor in state.items():
        if is_by_latent(name):
            shard, rows = exchange.mesh.latent.part(d_sae), held(name, d_sae, exchange)
            part = exchange.mesh.data.part(len(shard))
            first, stop = shard.start + part.start, shard.start + part.stop
            found[name] = TensorRows(tensor[first - rows.start : stop - rows.start], first, d_sae)
        elif exchange.mesh.ranks.first:
            found[name] = TensorRows(tensor, 0, len(tensor) if tensor.dim() else 0)
    return found


def check_replicas(state: Mapping[str, Tensor], exchange: Exchange) -> None:
    """Make sure that what several ranks hold has the same bits on all.

    A sum over the bits of each tensor is compared, which costs one pass over the weights and a few bytes.

    Raises:
        UserError: on all ranks, when a tensor differs; it can only be that they compute differently.
    """
    mesh = exchange.mesh
    if mesh.world.size == 1:
        return
    by_latent = [
        name for name in state if is_by_latent(name) and not (exchange.summed.size > 1 and _is_moment_of_matrix(name))
    ]
    everywhere = [name for name in state if not is_by_latent(name)]
    differs = torch.cat([_differs(by_latent, state, mesh.data), _differs(everywhere, state, mesh.world)])
    anywhere = -mesh.world.least(-differs, REPLICAS)
    if found := [name for name, bad in zip([*by_latent, *everywhere], anywhere.tolist(), strict=True) if bad]:
        raise UserError(
            f"ranks that should hold the same {found[0]} hold different numbers, so nothing is saved: do they run the "
            "same saelab and torch on the same kind of processor? The last checkpoint is good"
        )


def _differs(names: list[str], state: Mapping[str, Tensor], axis: Axis) -> Int[Tensor, "names"]:
    """1 for each tensor whose bits are not the same on all ranks."""
    device = state["weights.W_enc"].device
    sums = torch.stack([_bits(state[name]).to(device) for name in names])
    least, most = axis.least(torch.cat([sums, -sums]), REPLICAS).chunk(2)
    return (least != -most).long()


def _bits(tensor: Tensor) -> Int[Tensor, ""]:
    """Sum of the bit patterns; it wraps around."""
    whole = {4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.contiguous().reshape(-1).view(whole).sum(dtype=torch.int64)


def _is_moment_of_matrix(name: str) -> bool:
    owner, what = name.split(".")[:2]
    return owner == "adam" and what in _MATRICES
