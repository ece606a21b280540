"""Which latents are starved, and by how much: the one thing in which aux_k and aux_zipf differ."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelab.dictionaries.zipf import ZipfFit, fit_zipf
from saelab.training.config import AuxK, AuxZipf
from saelab.training.statistics import LatentStatistics

MIN_LIVE = 16  # fewer firing latents than this say nothing about a law
FIT_POINTS = 512  # ranks that take part in fits during training


class Deficit:
    """δ per latent, from 0 (thriving) to 1 (dead).

    aux_k: 1 for dead latents, else 0 (arXiv 2406.04093). aux_zipf: how far a latent's running density lies below `c`
    times what the fitted law expects of its rank (arXiv 2411.02124; formula our reading).
    """

    def __init__(self, aux: AuxK | AuxZipf, dead_after: int) -> None:
        self.aux, self.dead_after = aux, dead_after
        self.law: ZipfFit | None = None

    def __call__(self, statistics: LatentStatistics, step: int) -> Float[Tensor, "F"]:
        """δ before training step number `step`."""
        dead = statistics.dead(self.dead_after)
        if isinstance(self.aux, AuxK):
            return dead.float()
        if self.law is None or step % self.aux.fit_every == 0:
            densities = statistics.everywhere(statistics.densities())
            self.law = fit_zipf(densities, FIT_POINTS) if int((densities > 0).sum()) >= MIN_LIVE else None
        if self.law is None:
            return dead.float()
        alive = statistics.everywhere(statistics.densities().masked_fill(dead, 0.0))
        return statistics.own(lag(alive, self.law, self.aux.c)).float()

    def state(self) -> dict[str, Tensor]:
        """The fitted law, for checkpoints: a run that continues must not fit at another step."""
        if self.law is None:
            return {}
        law = [self.law.s, self.law.q, self.law.intercept, self.law.s_error, self.law.q_error,
               self.law.intercept_error, self.law.r_squared, self.law.n_latents]  # fmt: skip
        return {"deficit.law": torch.tensor(law, dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        if "deficit.law" in state:
            *numbers, n_latents = state["deficit.law"].tolist()
            self.law = ZipfFit(*numbers, n_latents=int(n_latents))


def zipf_deficit(densities: Float[Tensor, "F"], dead: Bool[Tensor, "F"], law: ZipfFit, c: float) -> Float[Tensor, "F"]:
    """`δ_i = clip(1 − density_i / (c · p(rank_i)), 0, 1)`, and 1 for dead latents; ranks by density, 1 = densest.

    A dead latent's running density has not decayed to 0 yet; counting it as 0 makes c → 0 the aux_k rule exactly.
    """
    return lag(densities.masked_fill(dead, 0.0), law, c)


def lag(alive: Float[Tensor, "F"], law: ZipfFit, c: float) -> Float[Tensor, "F"]:
    """The same of densities that are 0 where a latent is dead."""
    order = torch.sort(alive, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(1, len(order) + 1, device=order.device)
    expected = law.density(rank)
    return (1 - alive / (c * expected)).clamp(0, 1)
