"""The price of sparsity where there is no budget: λ, and how it finds the λ at which k latents are active."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.dictionaries.config import SparsityPenalty
from saelab.training.config import risen
from saelab.training.exchange import as_double
from saelab.training.gates.gate import GateInput

FIRST = 1.0  # λ before it is steered: about what a match of activation 1 is worth
GAIN = 0.04  # how much of log(L0 / wanted) a step adds to log λ
MOST = math.log(2.0)  # further off than by a factor of 2 counts as that, so that λ does not wind up


class Price:
    """λ of the penalty `λ / (B·d) · Σ …`, beside the mean squared error over the same B·d numbers.

    Given, λ rises in a straight line over the warm-up. Steered (our own): the wanted L0 falls from what the first batch
    has to k over the warm-up, evenly on a log scale, and every step moves log λ by a small share of log(L0 / wanted),
    on the device. So runs of different architectures can be compared at equal L0.
    """

    def __init__(self, config: SparsityPenalty, k: float, device: torch.device) -> None:
        self.config, self.k = config, k
        first = FIRST if config.coefficient is None else config.coefficient
        self.log_price = torch.tensor(math.log(first), dtype=torch.float64, device=device)
        self.first_l0 = torch.tensor(0.0, dtype=torch.float64, device=device)  # not seen yet

    @property
    def is_steered(self) -> bool:
        """Whether λ follows how many latents are active."""
        return self.config.coefficient is None

    def now(self, progress: float) -> Float[Tensor, ""]:
        """λ when this share of training is done."""
        share = risen(progress, self.config.warmup_fraction) if not self.is_steered else 1.0
        return self.log_price.exp() * share

    def observe(self, active: Float[Tensor, ""] | float, tokens: int, progress: float) -> None:
        """Take in how many latents were active on a batch."""
        if not self.is_steered:
            return
        l0 = (torch.as_tensor(active, dtype=torch.float64, device=self.log_price.device) / tokens).clamp(min=1e-3)
        self.first_l0 = torch.where(self.first_l0 == 0, l0, self.first_l0)
        way = risen(progress, self.config.warmup_fraction)
        wanted = self.first_l0.log() * (1 - way) + math.log(self.k) * way
        self.log_price = self.log_price + GAIN * (l0.log() - wanted).clamp(min=-MOST, max=MOST)

    def state(self) -> dict[str, Tensor]:
        return {"gate.log_price": self.log_price, "gate.first_l0": self.first_l0}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.log_price, self.first_l0 = state["gate.log_price"], state["gate.first_l0"]


class PricedGate:
    """What gates that pay for sparsity have in common."""

    def __init__(self, penalty: SparsityPenalty, k: float, device: torch.device) -> None:
        self.price = Price(penalty, k, device)

    def pay(self, batch: GateInput, active: Float[Tensor, ""] | int) -> Float[Tensor, ""]:
        """λ per number of the target, as it stands in the mean loss; λ then takes in how many latents were active.

        Args:
            active: matches of this rank's tokens and latents.
        """
        price = self.price.now(batch.progress) / batch.numbers
        if self.price.is_steered:
            world = batch.exchange.mesh.world
            everywhere = active if world.size == 1 else world.sum(as_double(active, price.device), "price")
            self.price.observe(everywhere, batch.tokens.total, batch.progress)
        return price.to(batch.target.dtype)

    def reads_by_latent(self, progress: float) -> bool:
        """Never: what is kept is decided match by match."""
        return False

    def state(self) -> dict[str, Tensor]:
        return self.price.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        self.price.restore(state)
