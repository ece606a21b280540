"""The training step of every dictionary: gate, reconstruction, auxiliary loss, Adam."""

from __future__ import annotations

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
from saelab.kernels.product import Buffer
from saelab.training.auxiliary import auxiliary_gradients, auxiliary_size, auxiliary_stride
from saelab.training.concentration import Concentration
from saelab.training.config import NoAux, TrainConfig, risen
from saelab.training.deficit import Deficit
from saelab.training.gates.budgeted import BudgetedGate
from saelab.training.gates.gate import Gate, GateInput
from saelab.training.gates.gated import GatedGate
from saelab.training.gates.jumprelu import JumpReluGate
from saelab.training.gates.relu import ReluGate
from saelab.training.gradients import Gradients, step_gradients
from saelab.training.initial import Scaling, Weights, initial_weights
from saelab.training.optimizer import UnitNormAdam
from saelab.training.reconstruction import reconstruct
from saelab.training.soundness import Soundness
from saelab.training.statistics import LatentStatistics

CHECK_EVERY = 16  # steps: how late a device that runs behind the host may be asked whether all losses were numbers


@dataclass
class StepResult:
    """Sums of one step, left on the device; the log fetches them seldom."""

    squared_error: Tensor
    squared_deviation: Tensor
    concentration: Concentration
    penalty: Tensor | float
    aux_loss: Tensor | float
    lr: float


class Look(NamedTuple):
    """What one batch says."""

    gradients: Gradients
    codes: SparseCodes
    squared_error: Tensor
    squared_deviation: Tensor
    penalty: Tensor | float
    aux_loss: Tensor | float


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
        self.soundness = Soundness(weights.W_enc.device)
        self.check_every = 1 if weights.W_enc.device.type == "cpu" else CHECK_EVERY  # where asking costs nothing
        weights.extra = self.gate.extra(weights)
        self.backend = choose(config.backend, weights.W_enc.device)
        self.optimizer = UnitNormAdam(weights, config.optimizer, self.backend)
        aux = config.sae.aux
        self.deficit = None if isinstance(aux, NoAux) else Deficit(aux, config.sae.dead_after)
        self.aux_scores = Buffer.shared("auxiliary scores")
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
            DivergedError: as `check`, which runs on its own every `check_every` steps.
        """
        seen = self.look(batch)
        self.soundness.observe(seen.squared_error + seen.aux_loss, self.done)
        if self.done % self.check_every == 0:
            self.check()
        frozen = self.soundness.broken
        lr = self.optimizer.step(seen.gradients, seen.codes, self.done, self.config.steps, frozen)
        fired = seen.codes.fired()
        self.statistics.update(seen.codes, fired, frozen)
        self.done += 1
        spread = Concentration.of(seen.codes, fired)
        return StepResult(seen.squared_error, seen.squared_deviation, spread, seen.penalty, seen.aux_loss, lr)

    def check(self) -> None:
        """Make sure that all losses so far were numbers; waits for the device.

        Raises:
            DivergedError: one was NaN or infinite. Weights, moments and statistics are those before its step, whose
                number `done` now is; what a gate carries from batch to batch (a price, the remainders of budgets) may
                be up to `check_every` batches ahead.
        """
        if trouble := self.soundness.trouble():
            self.done = trouble.step
            raise DivergedError(
                f"the loss became {trouble.loss} at step {trouble.step}; "
                "lower optimizer.lr or look for non-finite activations"
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
        squared_error = reconstruction.error.square().sum()
        flow = self.gate.backward(given, kept, reconstruction.grad_f, reconstruction.grad_x_hat)
        gradients = step_gradients(weights, centred, kept.codes, reconstruction, flow, backend)
        aux_loss = self._auxiliary(given, reconstruction.error, gradients)
        deviation = (target - target.mean(0)).square_().sum()
        return Look(gradients, kept.codes, squared_error, deviation, flow.penalty, aux_loss)

    def _auxiliary(
        self, given: GateInput, error: Float[Tensor, "B d_out"], gradients: Gradients
    ) -> Float[Tensor, ""] | float:
        if self.deficit is None:
            return 0.0
        aux, sae = self.deficit.aux, self.config.sae
        coefficient = aux.coefficient * risen(given.progress, aux.warmup_fraction)
        if coefficient == 0:
            return 0.0
        k_aux = auxiliary_size(aux, error.shape[1])
        stride = auxiliary_stride(aux, k_aux, sae.k, len(error))
        first = self.done % stride
        deficit = self.deficit(self.statistics, self.done)
        return auxiliary_gradients(
            given.every(stride, first), error[first::stride], deficit, k_aux, coefficient, gradients, self.aux_scores
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
