"""The training step of every dictionary: gate, reconstruction, auxiliary loss, Adam."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.disk.together import TensorRows
from saelab.errors import UserError
from saelab.kernels.backend import choose
from saelab.kernels.codes import SparseCodes
from saelab.kernels.product import Buffer
from saelab.ranks.mesh import Mesh
from saelab.training.auxiliary import auxiliary_gradients, auxiliary_size, auxiliary_stride
from saelab.training.concentration import Concentration
from saelab.training.config import NoAux, TrainConfig, risen
from saelab.training.deficit import Deficit
from saelab.training.exchange import Exchange, Tokens, added_up
from saelab.training.gates.choice import gate_of
from saelab.training.gates.gate import GateInput
from saelab.training.gradients import Gradients, step_gradients
from saelab.training.initial import Scaling, Weights, initial_weights
from saelab.training.optimizer import UnitNormAdam
from saelab.training.pieces import check_replicas, own_rows, pieces
from saelab.training.reconstruction import own_ends, reconstruct
from saelab.training.soundness import Soundness
from saelab.training.statistics import STATISTICS, LatentStatistics
from saelab.training.traffic import moves_rows

CHECK_EVERY = 16  # steps: how late a device that runs behind the host may be asked whether all losses were numbers
LOSSES = "losses"  # what travels


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

    Of several ranks each has the latents `shard` of the dictionary, and takes the tokens `mesh.data.part(B)` of every
    batch, which all of them are given whole. What is replicated (`b_dec`, scales, budgets, prices, laws) has the same
    bits on all.

    Shape legend: B = batch tokens · d = d_in · F = d_sae; of several ranks, a rank's own.

    Args:
        weights: of this rank's latents.
        sharded: let row sums travel instead of matches; left out, whichever is fewer bytes.
    """

    def __init__(
        self,
        config: TrainConfig,
        weights: Weights,
        scaling: Scaling,
        mesh: Mesh | None = None,
        sharded: bool | None = None,
    ) -> None:
        self.config, self.weights, self.scaling = config, weights, scaling
        self.mesh = mesh = Mesh() if mesh is None else mesh
        self.shard = mesh.latent.part(config.sae.d_sae)
        if sharded is None:
            d_in, d_out = weights.W_enc.shape[1], weights.W_dec.shape[1]
            sharded = moves_rows(config.sae, mesh.data.size, mesh.latent.size, config.batch, d_in, d_out)
        self.exchange = Exchange(mesh, sharded)
        self.statistics = LatentStatistics(config.sae.d_sae, weights.W_enc.device, self.exchange)
        self.gate = gate_of(config.sae, weights, self.statistics)
        self.soundness = Soundness(weights.W_enc.device)
        self.check_every = 1 if weights.W_enc.device.type == "cpu" else CHECK_EVERY  # where asking costs nothing
        weights.extra = self.gate.extra(weights)
        self.backend = choose(config.backend, weights.W_enc.device, mesh)
        self.optimizer = UnitNormAdam(weights, config.optimizer, config.sae.d_sae, self.backend, self.exchange)
        aux = config.sae.aux
        self.deficit = None if isinstance(aux, NoAux) else Deficit(aux, config.sae.dead_after)
        self.aux_scores = Buffer.shared("auxiliary scores")
        self.prefix_ends = own_ends(config.sae.prefix_ends(), self.shard)
        self.done = 0  # steps

    @classmethod
    def begin(
        cls,
        config: TrainConfig,
        sample: ActivationBatch,
        target_widths: tuple[int, ...] = (),
        mesh: Mesh | None = None,
        sharded: bool | None = None,
    ) -> Trainer:
        """A new training: scales and first weights come from a sample of its activations.

        Args:
            sample: the same on all ranks.
            target_widths: of a transcoder's target sites, one behind the other in `sample.target`.
        """
        mesh = Mesh() if mesh is None else mesh
        scaling = Scaling.of(sample, target_widths).agreed(mesh.world)
        x, target = scaling.apply(sample)
        d_sae, other = config.sae.d_sae, target if target_widths else None
        weights = initial_weights(x, d_sae, config.seed, other, mesh.latent.part(d_sae))
        weights.agree(mesh.world)
        trainer = cls(config, weights, scaling, mesh, sharded)
        trainer.gate.temper(weights)
        return trainer

    @classmethod
    def resume(
        cls,
        config: TrainConfig,
        state: Mapping[str, Tensor],
        done: int,
        device: torch.device | str = "cpu",
        mesh: Mesh | None = None,
        sharded: bool | None = None,
    ) -> Trainer:
        """The training that `state` was taken of, after `done` steps; it goes on to the same weights.

        Args:
            state: whole tensors, whatever ranks they were taken of; they may lie on disk, what is kept is copied.
        """
        mesh = Mesh() if mesh is None else mesh
        first = {name: tensor for name, tensor in state.items() if name.startswith("weights.")}
        own = own_rows(first, config.sae.d_sae, Exchange(mesh), device)
        W_enc, W_dec, b_enc, b_dec = (own[f"weights.{name}"] for name in ("W_enc", "W_dec", "b_enc", "b_dec"))
        weights = Weights(W_enc, W_dec, b_enc, b_dec, input_centre=own.get("weights.input_centre"))
        trainer = cls(config, weights, Scaling.from_state(state), mesh, sharded)
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
        fired = self.exchange.summed.sum(seen.codes.fired(), STATISTICS)
        self.statistics.update(seen.codes, fired, len(batch), frozen)
        self.done += 1
        spread = Concentration.of(seen.codes, fired, self.exchange)
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
        weights, backend, exchange, progress = self.weights, self.backend, self.exchange, self.done / self.config.steps
        tokens = Tokens.of(len(batch), self.mesh.data)
        x, target = self.scaling.apply(batch)
        centred, own = x - weights.centre, tokens.own
        gradient = None if batch.gradient is None else batch.gradient[own]
        k, by_latent = self.config.sae.k_at(progress), self.gate.reads_by_latent(progress)
        given = GateInput(
            weights, centred[own], target[own], gradient, k, progress, backend, tokens, centred, exchange, by_latent
        )
        kept = self.gate.open(given)
        reconstruction = reconstruct(kept.codes, weights, given.target, self.prefix_ends, given.numbers, backend)
        flow = self.gate.backward(given, kept, reconstruction.grad_f, reconstruction.grad_x_hat)
        gradients, codes = step_gradients(given, kept.codes, reconstruction, flow)
        aux_loss = self._auxiliary(given, reconstruction.error, gradients)
        gradients.add_up(exchange)
        part = exchange.own_of_alike(reconstruction.error).square().sum()
        squared_error, *rest = added_up(self.mesh.world, LOSSES, part, flow.penalty, aux_loss)
        deviation = (target - target.mean(0)).square_().sum()
        return Look(gradients, codes, torch.as_tensor(squared_error), deviation, *rest)

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
        stride = auxiliary_stride(aux, k_aux, sae.k, given.tokens.total)
        first = self.done % stride
        deficit, some = self.deficit(self.statistics, self.done), error[given.tokens.own_every(stride, first)]
        return auxiliary_gradients(
            given.every(stride, first), some, deficit, k_aux, coefficient, gradients, self.aux_scores
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold, as flat named tensors; of several ranks, what this one has."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.weights.named().items()}
        if self.weights.input_centre is not None:
            tensors["weights.input_centre"] = self.weights.input_centre
        tensors |= self.scaling.state() | self.optimizer.state() | self.statistics.state() | self.gate.state()
        return tensors | (self.deficit.state() if self.deficit is not None else {})

    def pieces(self) -> dict[str, TensorRows]:
        """What this rank is to write of every whole tensor of the state; all ranks together give every row once.

        Raises:
            UserError: ranks that should hold the same numbers don't; all ranks say so.
        """
        state, d_sae = self.state(), self.config.sae.d_sae
        check_replicas(state, self.exchange)
        return pieces(state, d_sae, self.exchange)

    def _restore(self, state: Mapping[str, Tensor], done: int) -> None:
        self.done = done
        matrices = ("weights.W_enc", "weights.W_dec")  # are there already
        rest = {name: tensor for name, tensor in state.items() if name not in matrices}
        own = own_rows(rest, self.config.sae.d_sae, self.exchange, self.weights.W_enc.device)
        for name, tensor in self.weights.extra.items():
            tensor.copy_(own[f"weights.{name}"])
        self.optimizer.restore(own)
        self.statistics.restore(own)
        self.gate.restore(own)
        if self.deficit is not None:
            self.deficit.restore(own)
