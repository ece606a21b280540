"""The training step of every dictionary: gate, reconstruction, auxiliary loss, Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.dictionaries.config import Gated, JumpRelu, Relu
from saelab.errors import UserError
from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes
from saelab.training.concentration import Concentration
from saelab.training.config import NoAux, TrainConfig, risen
from saelab.training.deficit import Deficit
from saelab.training.gates.budgeted import BudgetedGate
from saelab.training.gates.gate import Gate, GateInput
from saelab.training.gates.gated import GatedGate
from saelab.training.gates.jumprelu import JumpReluGate
from saelab.training.gates.relu import ReluGate
from saelab.training.gradients import Gradients, auxiliary_gradients, step_gradients
from saelab.training.initial import Scaling, Weights, initial_weights
from saelab.training.optimizer import UnitNormAdam
from saelab.training.reconstruction import reconstruct
from saelab.training.statistics import LatentStatistics


@dataclass
class StepResult:
    """Sums of one step, left on the device; the log fetches them seldom."""

    squared_error: Tensor
    squared_deviation: Tensor
    concentration: Concentration
    penalty: Tensor | float
    aux_loss: float
    lr: float


class Look(NamedTuple):
    """What one batch says."""

    gradients: Gradients
    codes: SparseCodes
    squared_error: Tensor
    squared_deviation: Tensor
    penalty: Tensor | float
    aux_loss: float


class DivergedError(UserError):
    """The loss is no longer a number; the weights are those before the step."""


class Trainer:
    """Everything that changes while one dictionary is trained, and the step that changes it.

    Shape legend: B = batch tokens · d = d_in · F = d_sae.
    """

    def __init__(self, config: TrainConfig, weights: Weights, scaling: Scaling) -> None:
        self.config, self.weights, self.scaling = config, weights, scaling
        self.statistics = LatentStatistics(config.sae.d_sae, weights.W_enc.device)
        self.gate = self._gate()
        weights.extra = self.gate.extra(weights)
        self.backend = choose(config.backend, weights.W_enc.device)
        self.optimizer = UnitNormAdam(weights, config.optimizer, self.backend)
        aux = config.sae.aux
        self.deficit = None if isinstance(aux, NoAux) else Deficit(aux, config.sae.dead_after)
        self.prefix_ends = config.sae.prefix_ends()
        self.done = 0  # steps

    @classmethod
    def begin(cls, config: TrainConfig, sample: ActivationBatch, target_widths: tuple[int, ...] = ()) -> Trainer:
        """A new training: scales and first weights come from a sample of its activations.

        Args:
            target_widths: of a transcoder's target sites, one behind the other in `sample.target`.
        """
        scaling = Scaling.of(sample, target_widths)
        x, target = scaling.apply(sample)
        weights = initial_weights(x, config.sae.d_sae, config.seed, target if target_widths else None)
        trainer = cls(config, weights, scaling)
        trainer.gate.temper(weights)
        return trainer

    @classmethod
    def resume(
        cls, config: TrainConfig, state: dict[str, Tensor], done: int, device: torch.device | str = "cpu"
    ) -> Trainer:
        """The training that `state` was taken of, after `done` steps; it goes on to the same weights."""
        state = {name: tensor.to(device) for name, tensor in state.items()}
        W_enc, W_dec, b_enc, b_dec = (state[f"weights.{name}"] for name in ("W_enc", "W_dec", "b_enc", "b_dec"))
        weights = Weights(W_enc, W_dec, b_enc, b_dec, input_centre=state.get("weights.input_centre"))
        trainer = cls(config, weights, Scaling.from_state(state))
        trainer._restore(state, done)
        return trainer

    def step(self, batch: ActivationBatch) -> StepResult:
        """Take one batch in and move the weights.

        Raises:
            DivergedError: the reconstruction error is NaN or infinite; the weights were not changed.
        """
        seen = self.look(batch)
        lr = self.optimizer.step(seen.gradients, seen.codes, self.done, self.config.steps)
        self.statistics.update(seen.codes)
        self.done += 1
        return StepResult(
            seen.squared_error, seen.squared_deviation, Concentration.of(seen.codes), seen.penalty, seen.aux_loss, lr
        )

    def look(self, batch: ActivationBatch) -> Look:
        """Forward and backward of one batch, without moving the weights."""
        weights, backend, progress = self.weights, self.backend, self.done / self.config.steps
        x, target = self.scaling.apply(batch)
        centred = x - weights.centre
        k, by_latent = self.config.sae.k_at(progress), self.gate.reads_by_latent(progress)
        given = GateInput(weights, centred, target, batch.gradient, k, progress, backend, by_latent)
        kept = self.gate.open(given)
        reconstruction = reconstruct(kept.codes, weights, target, self.prefix_ends, backend)
        squared_error = self._finite(reconstruction.error.square().sum())
        flow = self.gate.backward(given, kept, reconstruction.grad_f, reconstruction.grad_x_hat)
        gradients = step_gradients(weights, centred, kept.codes, reconstruction, flow, backend)
        aux_loss = self._auxiliary(given, reconstruction.error, gradients)
        deviation = (target - target.mean(0)).square().sum()
        return Look(gradients, kept.codes, squared_error, deviation, flow.penalty, aux_loss)

    def _finite(self, squared_error: Float[Tensor, ""]) -> Float[Tensor, ""]:
        if not torch.isfinite(squared_error):
            raise DivergedError(
                f"the loss became {float(squared_error)} at step {self.done}; "
                "lower optimizer.lr or look for non-finite activations"
            )
        return squared_error

    def _auxiliary(self, given: GateInput, error: Float[Tensor, "B d_out"], gradients: Gradients) -> float:
        if self.deficit is None:
            return 0.0
        aux = self.deficit.aux
        k_aux = aux.k_aux or nearest_power_of_two(error.shape[1] / 2)
        coefficient = aux.coefficient * risen(given.progress, aux.warmup_fraction)
        return auxiliary_gradients(
            given, error, self.deficit(self.statistics, self.done), k_aux, coefficient, gradients
        )

    def _gate(self) -> Gate:
        sae, weights = self.config.sae, self.weights
        device = weights.W_enc.device
        match sae.allocation:
            case Relu() as choice:
                return ReluGate(choice, sae, device)
            case JumpRelu() as choice:
                return JumpReluGate(choice, sae, weights.W_enc.shape[1], device)
            case Gated() as choice:
                return GatedGate(choice, sae, device)
            case _:
                return BudgetedGate(sae, self.statistics)

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, as flat named tensors."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.weights.named().items()}
        if self.weights.input_centre is not None:
            tensors["weights.input_centre"] = self.weights.input_centre
        tensors |= self.scaling.state() | self.optimizer.state() | self.statistics.state() | self.gate.state()
        return tensors | (self.deficit.state() if self.deficit is not None else {})

    def _restore(self, state: dict[str, Tensor], done: int) -> None:
        self.done = done
        for name, tensor in self.weights.extra.items():
            tensor.copy_(state[f"weights.{name}"])
        self.optimizer.restore(state)
        self.statistics.restore(state)
        self.gate.restore(state)
        if self.deficit is not None:
            self.deficit.restore(state)


def nearest_power_of_two(number: float) -> int:
    """The power of two nearest to `number` on a log scale, at least 1."""
    return 2 ** max(0, round(math.log2(number)))
