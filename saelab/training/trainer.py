"""The training step of every dictionary: affinity, allocation, reconstruction, auxiliary loss, Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.dictionaries import affinity
from saelab.dictionaries.allocation import FeatureAllocation, MutualAllocation, TokenAllocation, budget_shares
from saelab.dictionaries.config import FeatureChoice, GradientAffinity, TokenChoice
from saelab.errors import UserError
from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes
from saelab.training.config import NoAux, TrainConfig
from saelab.training.deficit import Deficit
from saelab.training.gradients import Gradients, auxiliary_gradients, reconstruction_gradients
from saelab.training.initial import Weights
from saelab.training.optimizer import UnitNormAdam
from saelab.training.statistics import LatentStatistics


@dataclass
class StepResult:
    """Sums of one step, left on the device; the log fetches them seldom."""

    squared_error: Tensor
    squared_deviation: Tensor
    active: Tensor
    aux_loss: float
    lr: float


class DivergedError(UserError):
    """The loss is no longer a number; the weights are those before the step."""


class Trainer:
    """Everything that changes while one dictionary is trained, and the step that changes it.

    Inputs are scaled by `scale` first. Shape legend: B = batch tokens · d = d_in · F = d_sae.
    """

    def __init__(self, config: TrainConfig, weights: Weights, scale: float) -> None:
        self.config, self.weights, self.scale = config, weights, scale
        self.optimizer = UnitNormAdam(weights, config.optimizer)
        self.statistics = LatentStatistics(config.sae.d_sae, weights.W_enc.device)
        self.backend = choose(config.backend)
        aux = config.sae.aux
        self.deficit = None if isinstance(aux, NoAux) else Deficit(aux, config.sae.dead_after)
        self.allocation = self._first_allocation()
        self.done = 0  # steps

    def step(self, batch: ActivationBatch) -> StepResult:
        """Take one batch in and move the weights.

        Raises:
            DivergedError: the reconstruction error is NaN or infinite; nothing was changed.
        """
        self._enter_feature_phase()
        weights = self.weights
        x = batch.x * self.scale
        centred = x - weights.b_dec
        z = torch.nn.functional.linear(centred, weights.W_enc, weights.b_enc)  # [B, F]: the one dense product
        codes, slope = self.select(z, batch.gradient)
        error = x - (self.backend.decode(codes, weights.W_dec) + weights.b_dec)
        squared_error = error.square().sum()
        if not torch.isfinite(squared_error):
            raise DivergedError(
                f"the loss became {float(squared_error)} at step {self.done}; "
                "lower optimizer.lr or look for non-finite activations"
            )
        grad_x_hat = error * (-2 / error.numel())  # of the mean squared error
        gradients = reconstruction_gradients(weights, centred, codes, slope, grad_x_hat, self.backend)
        aux_loss = self._auxiliary(centred, z, error, gradients)
        lr = self.optimizer.step(gradients, self.done, self.config.steps)
        self.statistics.update(codes)
        self.done += 1
        deviation = (x - x.mean(0)).square().sum()
        return StepResult(squared_error, deviation, (codes.values > 0).sum(), aux_loss, lr)

    def select(self, z: Float[Tensor, "B F"], gradient: Float[Tensor, "B d"] | None) -> tuple[SparseCodes, Tensor]:
        """Spend the budget; returns kept activations f and the slope df/dz of each."""
        sae = self.config.sae
        scores = affinity.scores(sae.affinity, z, gradient, self.weights.W_dec)
        codes = self.allocation.select(scores, sae.k, self.backend)
        kept_z = codes.values if scores is z else z[codes.row_ids, codes.latents]
        open_gate = (kept_z > 0).to(kept_z.dtype)
        slope = open_gate
        if isinstance(sae.affinity, GradientAffinity) and sae.affinity.value == "affinity" and scores is not z:
            slope = open_gate * torch.where(kept_z != 0, codes.values / kept_z, 1.0)  # 1 + β|g|, a constant
        kept = codes.with_values((kept_z * slope).relu())
        if isinstance(sae.allocation, FeatureChoice) and sae.allocation.straight_through:
            slope = torch.where(kept_z > 0, slope, 1.0)
        return kept, slope

    def _auxiliary(
        self, centred: Float[Tensor, "B d"], z: Float[Tensor, "B F"], error: Float[Tensor, "B d"], gradients: Gradients
    ) -> float:
        if self.deficit is None:
            return 0.0
        aux = self.deficit.aux
        k_aux = aux.k_aux or nearest_power_of_two(centred.shape[1] / 2)
        return auxiliary_gradients(
            self.weights, centred, z, error, self.deficit(self.statistics, self.done),
            k_aux, aux.coefficient, gradients, self.backend,
        )  # fmt: skip

    def _first_allocation(self) -> TokenAllocation | MutualAllocation | FeatureAllocation:
        choice = self.config.sae.allocation
        if isinstance(choice, TokenChoice):
            return TokenAllocation()
        if isinstance(choice, FeatureChoice) and choice.warmup_fraction == 0:
            return FeatureAllocation(budget_shares(choice, self.statistics.densities()))
        return MutualAllocation()  # also phase 1 of feature choice: densities settle first

    def _enter_feature_phase(self) -> None:
        choice = self.config.sae.allocation
        if not isinstance(choice, FeatureChoice) or isinstance(self.allocation, FeatureAllocation):
            return
        if self.done >= choice.warmup_fraction * self.config.steps:
            self.allocation = FeatureAllocation(budget_shares(choice, self.statistics.densities()))
            self.statistics.forget_thresholds()

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, as flat named tensors."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.weights.named().items()}
        tensors |= self.optimizer.state() | self.statistics.state()
        if self.deficit is not None:
            tensors |= self.deficit.state()
        if isinstance(self.allocation, FeatureAllocation):
            tensors |= {"allocation.shares": self.allocation.shares, "allocation.carry": self.allocation.carry}
        return tensors

    def restore(self, tensors: dict[str, Tensor], done: int) -> None:
        """Continue exactly where `state` was taken, after `done` steps."""
        self.done = done
        for name, tensor in self.weights.named().items():
            tensor.copy_(tensors[f"weights.{name}"])
        on_device = {name: tensor.to(self.weights.W_enc.device) for name, tensor in tensors.items()}
        self.optimizer.restore(on_device)
        self.statistics.restore(on_device)
        if self.deficit is not None:
            self.deficit.restore(tensors)
        if "allocation.shares" in tensors:
            self.allocation = FeatureAllocation(tensors["allocation.shares"])
            # As they were: dividing by their sum once more could change a last bit.
            self.allocation.shares, self.allocation.carry = tensors["allocation.shares"], tensors["allocation.carry"]


def nearest_power_of_two(number: float) -> int:
    """The power of two nearest to `number` on a log scale, at least 1."""
    return 2 ** max(0, round(math.log2(number)))
