"""What training remembers about its latents: when each last fired, how often it fires, where its threshold lies."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.kernels.codes import SparseCodes
from saelab.training.exchange import ALONE, Exchange

DENSITY_DECAY = 0.99  # per batch: a memory of about 100 batches
THRESHOLD_DECAY = 0.99
STATISTICS, DENSITIES = "statistics", "densities"  # what travels


class LatentStatistics:
    """Running statistics per latent; all of it is saved in checkpoints.

    Of several ranks each has those of its own F latents, over the tokens of all.

    Args:
        d_sae: number of all latents.

    Attributes:
        idle: `[F]` tokens since the latent last fired.
        density: `[F]` running share of tokens on which it fires.
        threshold: `[F]` running mean of its smallest kept positive value, fp32 (our reading, for feature choice).
        threshold_seen: `[F]` weight behind that mean, for its bias correction; 0 = never fired.
        batch_threshold: `[2]` the same for the smallest kept positive value of the whole batch (arXiv 2412.06410).
    """

    def __init__(self, d_sae: int, device: torch.device, exchange: Exchange = ALONE) -> None:
        self.exchange = exchange
        self.shards = [len(part) for part in exchange.mesh.latent.parts(d_sae)]
        own = self.shards[exchange.mesh.latent.index]
        self.idle = torch.zeros(own, dtype=torch.int64, device=device)
        self.density = torch.zeros(own, dtype=torch.float64, device=device)
        self.density_seen = torch.zeros((), dtype=torch.float64, device=device)
        self.threshold = torch.zeros(own, device=device)
        self.threshold_seen = torch.zeros(own, device=device)
        self.batch_threshold = torch.zeros(2, device=device)

    def update(self, codes: SparseCodes, fired: Int[Tensor, "F"], tokens: int, frozen: Bool[Tensor, ""]) -> None:
        """Take in one batch of kept matches, unless `frozen` is set: then everything stays as it is.

        Args:
            codes: the matches that this rank sees.
            fired: on how many of all the batch's tokens each latent fired.
            tokens: of the whole batch.
        """
        self.idle = torch.where(frozen, self.idle, torch.where(fired > 0, 0, self.idle + tokens))
        step = torch.where(frozen, 0.0, torch.full_like(self.density_seen, 1 - DENSITY_DECAY))
        self.density.lerp_(fired.double() / tokens, step)
        self.density_seen.lerp_(torch.ones_like(self.density_seen), step)
        self._update_thresholds(codes, frozen)

    def _update_thresholds(self, codes: SparseCodes, frozen: Bool[Tensor, ""]) -> None:
        infinity = torch.full_like(self.threshold, torch.inf)
        positive = torch.where(codes.values > 0, codes.values, torch.inf).to(infinity.dtype)
        smallest = infinity.scatter_reduce(0, codes.latents, positive, reduce="amin")
        smallest = self.exchange.summed.least(smallest, STATISTICS)
        _follow(self.threshold, self.threshold_seen, smallest, frozen)
        of_all = self.exchange.mesh.latent.least(smallest.amin(), STATISTICS)
        _follow(self.batch_threshold[0], self.batch_threshold[1], of_all, frozen)

    def dead(self, dead_after: int) -> Bool[Tensor, "F"]:
        """Latents that fired for none of the last `dead_after` tokens."""
        return self.idle >= dead_after

    def densities(self) -> Float[Tensor, "F"]:
        """Running densities, corrected for the short memory of the first batches."""
        return self.density / self.density_seen.clamp(min=1e-12)

    def everywhere(self, own: Float[Tensor, "F"]) -> Float[Tensor, "F_all"]:
        """A number for each latent of all ranks, of the numbers that each has for its own."""
        return self.exchange.mesh.latent.gather(own, DENSITIES, self.shards)

    def own(self, of_all: Float[Tensor, "F_all"]) -> Float[Tensor, "F"]:
        """This rank's share of them."""
        return of_all.split(self.shards)[self.exchange.mesh.latent.index]

    def global_threshold(self) -> float:
        """One threshold for all latents (mutual choice)."""
        mean, seen = self.batch_threshold.tolist()
        return mean / max(seen, 1e-12)

    def latent_thresholds(self) -> Float[Tensor, "F"]:
        """A threshold per latent (feature choice); one that never fired gets the largest fp32, so it stays silent."""
        never = torch.finfo(torch.float32).max
        return torch.where(self.threshold_seen > 0, self.threshold / self.threshold_seen.clamp(min=1e-12), never)

    def forget_thresholds(self) -> None:
        """Start the thresholds anew: another allocation keeps other values."""
        for tensor in (self.threshold, self.threshold_seen, self.batch_threshold):
            tensor.zero_()

    def state(self) -> dict[str, Tensor]:
        names = ("idle", "density", "density_seen", "threshold", "threshold_seen", "batch_threshold")
        return {f"statistics.{name}": getattr(self, name) for name in names}

    def restore(self, state: dict[str, Tensor]) -> None:
        for name in self.state():
            setattr(self, name.removeprefix("statistics."), state[name])


def _follow(
    mean: Float[Tensor, "*n"], seen: Float[Tensor, "*n"], value: Float[Tensor, "*n"], frozen: Bool[Tensor, ""]
) -> None:
    """Move a running mean, and the weight behind it, in place towards `value` where that is finite."""
    moves = value.isfinite() & ~frozen
    step = torch.where(moves, 1 - THRESHOLD_DECAY, 0.0).to(mean.dtype)
    mean.lerp_(torch.where(moves, value, 0.0), step)
    seen.lerp_(torch.ones_like(seen), step)
