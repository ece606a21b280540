"""Who trains which runs of a pass, and what the ranks know of those that others train."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import torch

from saelab.ranks.mesh import Mesh
from saelab.training.parallel import Layout
from saelab.training.run import Run, Stage
from saelab.training.trainer import DivergedError

LOOK_EVERY = 20  # batches between looks at what other ranks train
_STAGES: tuple[Stage, ...] = ("waiting", "training", "checking", "finished", "diverged")
_SHOWN = ("fvu", "l0", "dead")


class Team:
    """The ranks of a mesh: all train each run together, or, where the runs are spread, each its own.

    Args:
        together: the most runs of a pass that one rank may have in memory; None for any number.
    """

    def __init__(self, mesh: Mesh, layout: Layout, together: int | None = None) -> None:
        self.mesh, self.layout = mesh, layout
        self.spread = layout.sweep > 1
        self.together = None if together is None else together * layout.sweep
        self._each = together

    @property
    def of_a_run(self) -> Mesh:
        """The ranks that train a run together."""
        return Mesh() if self.spread else self.mesh

    def mine(self, runs: Sequence[Run]) -> list[Run]:
        """Those of a pass that this rank trains."""
        if not self.spread:
            return list(runs)
        costs = [run.config.sae.d_sae * (run.config.steps - run.done) for run in runs]
        ranks = dealt(costs, self.mesh.world.size, self._each)
        return [run for run, rank in zip(runs, ranks, strict=True) if rank == self.mesh.world.index]

    def looks(self, batches: int) -> bool:
        """Whether it is time for `look`, after so many batches of a pass."""
        return not self.spread or batches % LOOK_EVERY == 0

    def look(self, runs: Sequence[Run], mine: Sequence[Run], device: torch.device) -> None:
        """Learn how the runs of others are doing: stage, and the numbers that people are shown."""
        if not self.spread:
            return
        table = torch.zeros(len(runs), 1 + len(_SHOWN), dtype=torch.float64)
        for row, run in zip(table, runs, strict=True):
            if run in mine:
                said = [run.said.get(name) for name in _SHOWN]
                row.copy_(torch.tensor([_STAGES.index(run.stage), *(math.nan if n is None else n for n in said)]))
        for (stage, *numbers), run in zip(self.mesh.world.sum(table.to(device), "sweep").tolist(), runs, strict=True):
            if run not in mine:
                run.stage = _STAGES[int(stage)]
                run.said = {
                    name: None if math.isnan(n) else int(n) if name == "dead" else n
                    for name, n in zip(_SHOWN, numbers, strict=True)
                }

    def tell_troubles(self, runs: Sequence[Run]) -> None:
        """Let every rank know why runs of others diverged."""
        if not self.spread:
            return
        own = {run.name: str(run.trouble) for run in runs if run.trouble is not None}
        for told in map(json.loads, self.mesh.ranks.gather("troubles", json.dumps(own))):
            for run in runs:
                if run.name in told:
                    run.trouble = DivergedError(told[run.name])


def dealt(costs: Sequence[float], ranks: int, most: int | None = None) -> list[int]:
    """The rank of each piece of work: the dearest first, each to the rank that has least to do so far.

    Args:
        most: pieces that a rank may have; None for any number.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for piece in sorted(range(len(costs)), key=lambda piece: -costs[piece]):
        open_ranks = [rank for rank in range(ranks) if most is None or len(shares[rank]) < most]
        least = min(open_ranks, key=lambda rank: (sum(costs[one] for one in shares[rank]), len(shares[rank])))
        shares[least].append(piece)
    return [next(rank for rank in range(ranks) if piece in shares[rank]) for piece in range(len(costs))]
