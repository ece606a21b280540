"""How training divides among the processes of a job: the settings, and what they come to for so many ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from saelab.config import Config
from saelab.errors import UserError
from saelab.training.config import TrainConfig


class Layout(NamedTuple):
    """What the ranks divide among them."""

    data: int = 1
    """Slices of every batch."""
    latent: int = 1
    """Shards of the latents."""
    sweep: int = 1
    """Ranks that train runs of their own."""


class ParallelConfig(Config):
    """Who does what under torchrun. No part of a run's settings: it may continue on any number of processes."""

    data: int | None = Field(default=None, ge=1)
    """Slices of every batch, each worked on by other processes of torchrun; left out, what `latent` leaves."""
    latent: int | None = Field(default=None, ge=1)
    """Shards of the latents, each held by other processes; data · latent is their number; left out, what `data`
    leaves, which is all of them if that is left out too."""
    sweep: bool = False
    """Spread the runs of a grid over the processes: each trains its own, and they share one pass over the data."""

    def layout(self, ranks: int, configs: Sequence[TrainConfig]) -> Layout:
        """What so many ranks divide when they train these.

        Raises:
            UserError: they can't; the sentence says what would do.
        """
        if self.sweep:
            return Layout(sweep=self._spread(ranks, len(configs)))
        if ranks == 1:
            self._require_torchrun()
        data = self.data or (1 if self.latent is None else ranks // self.latent)
        latent = self.latent or ranks // data
        if data * latent != ranks:
            given = {"data": self.data, "latent": self.latent}
            asked = " and ".join(f"parallel.{key} = {number}" for key, number in given.items() if number is not None)
            raise UserError(
                f"{asked} can't divide {ranks} processes: data times latent is their number, which "
                "torchrun --nproc-per-node sets"
            )
        for config in configs:
            if config.batch < data:
                raise UserError(f"batch = {config.batch} is less than a token for each of parallel.data = {data}")
            if config.sae.d_sae < latent:
                raise UserError(
                    f"sae.d_sae = {config.sae.d_sae} is less than a latent for each of parallel.latent = {latent}"
                )
        return Layout(data, latent)

    def _spread(self, ranks: int, runs: int) -> int:
        if self.data is not None or self.latent is not None:
            raise UserError(
                "parallel.sweep gives every run to one process, and parallel.data and parallel.latent divide each run "
                "among them; give one or the other"
            )
        if runs == 1:
            raise UserError(
                "parallel.sweep spreads the runs of a grid, and these settings make one run; "
                "give several values (--sae.k 16,32), or parallel.latent"
            )
        if ranks == 1:
            raise UserError(
                "parallel.sweep spreads runs over processes, and this is one alone; "
                "type torchrun --nproc-per-node N -m saelab train …"
            )
        return ranks

    def _require_torchrun(self) -> None:
        wanted = (self.data or 1) * (self.latent or 1)
        if wanted > 1:
            key, number = ("latent", self.latent) if (self.latent or 1) > 1 else ("data", self.data)
            raise UserError(
                f"parallel.{key} = {number} takes {wanted} processes, and this is one alone; "
                f"type torchrun --nproc-per-node {wanted} -m saelab train …"
            )
