"""Which of what several ranks offer is among the best of all: the selection of one process, put together from parts."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saelab.kernels.keys import best_first


def winners(parts: Int[Tensor, "ranks n"], budgets: Int[Tensor, "S"], own: int) -> Bool[Tensor, "n"]:
    """Which of rank `own`'s places hold one of the `budgets[s]` largest keys of their segment s over all ranks.

    Segments lie one behind the other, segment s in `budgets[s]` places: a rank's best, in the order of the tie rule,
    and `lowest` where it has fewer. Among equals the lower rank wins, then the earlier place.
    """
    ranks, n = parts.shape
    segments = torch.arange(len(budgets), device=parts.device)
    of_place = torch.repeat_interleave(segments, budgets, output_size=n).repeat(ranks)
    order = best_first(parts.reshape(-1), of_place)
    starts = ranks * (budgets.cumsum(0) - budgets)
    in_order = of_place.index_select(0, order)
    rank = torch.arange(ranks * n, device=parts.device) - starts.index_select(0, in_order)
    wins = torch.empty_like(rank, dtype=torch.bool)
    wins[order] = rank < budgets.index_select(0, in_order)
    return wins.view(ranks, n)[own]
