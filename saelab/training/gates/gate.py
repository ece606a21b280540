"""What every gate takes, gives and must be able to do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes
from saelab.training.exchange import ALONE, Exchange, Tokens
from saelab.training.initial import Weights


@dataclass(frozen=True)
class GateInput:
    """One batch on its way through the step: this rank's tokens and its latents.

    Of several ranks each has B tokens of its own; `tokens` says which, and `everyone` is the whole batch.
    """

    weights: Weights
    centred: Float[Tensor, "B d"]
    """Scaled inputs less the centre."""
    target: Float[Tensor, "B d_out"]
    """What is reconstructed, scaled."""
    gradient: Float[Tensor, "B d"] | None
    """∇_x L of the language model, for the gradient affinity."""
    k: float
    """Budget per token at this step."""
    progress: float
    """Share of training that is done."""
    backend: Backend
    tokens: Tokens
    """Where the B tokens are in the whole batch."""
    everyone: Float[Tensor, "T d"]
    """`centred` of the whole batch."""
    exchange: Exchange = ALONE
    """How this rank and others share the batch."""
    by_latent: bool = False
    """Whether z is to be laid out latent by latent."""

    @property
    def numbers(self) -> int:
        """Numbers of the whole batch's targets: what mean losses are means over."""
        return self.tokens.total * self.target.shape[1]

    @cached_property
    def z(self) -> Float[Tensor, "B F"]:
        """Pre-activations `W_enc (x − centre) + b_enc`: the one dense product, for who asks."""
        return self.backend.pre_activations(self.centred, self.weights.W_enc, self.weights.b_enc, self.by_latent)

    def z_of(self, latents: Int[Tensor, "n"] | None) -> Float[Tensor, "B n"]:
        """Pre-activations of some latents, or of all; read only."""
        if latents is None:
            return self.z
        if "z" in self.__dict__:
            return torch.gather(self.z, 1, latents.expand(len(self.centred), -1))
        W_enc, b_enc = self.weights.W_enc[latents], self.weights.b_enc[latents]
        return self.backend.pre_activations(self.centred, W_enc, b_enc, by_latent=False)

    def every(self, stride: int, first: int) -> GateInput:
        """Every `stride`-th token of the whole batch from the `first` on."""
        some = self.tokens.own_every(stride, first)
        gradient = None if self.gradient is None else self.gradient[some]
        part = replace(
            self, centred=self.centred[some], target=self.target[some], gradient=gradient,
            tokens=self.tokens.every(stride, first), everyone=self.everyone[first::stride],
        )  # fmt: skip
        if "z" in self.__dict__:
            part.__dict__["z"] = self.z[some]
        return part


class Kept(NamedTuple):
    """What a gate let through."""

    codes: SparseCodes
    """Kept matches with their activations f."""
    z: Float[Tensor, "nnz"]
    """Their pre-activations."""


@dataclass(frozen=True)
class Flow:
    """∂loss on the encoder's side of the kept matches, sparsity penalty included."""

    z: Float[Tensor, "nnz"]
    """With respect to `W_enc (x − centre)`."""
    bias: Float[Tensor, "nnz"]
    """With respect to `b_enc`; the same tensor but where a gate has biases of its own."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """With respect to the gate's own weights."""
    penalty: Tensor | float = 0.0
    """Sparsity penalty as it stands in the loss."""


class Inference(NamedTuple):
    """How the finished dictionary encodes one token alone: f = relu(gain · z + shift) where z > threshold.

    Empty tensors stand for: the k best (threshold), and f = z (gain, shift).
    """

    threshold: Float[Tensor, "..."] = torch.empty(0)
    gain: Float[Tensor, "..."] = torch.empty(0)
    shift: Float[Tensor, "..."] = torch.empty(0)


class Gate(Protocol):
    """The choice of matches in one architecture."""

    def extra(self, weights: Weights) -> dict[str, Tensor]:
        """Weights of its own, which the optimiser trains beside the dictionary's."""
        ...

    def temper(self, weights: Weights) -> None:
        """Change a new training's first weights, where a gate starts badly from the usual ones."""
        ...

    def reads_by_latent(self, progress: float) -> bool:
        """Whether `open` looks through z latent by latent, not token by token, when this share of training is done."""
        ...

    def open(self, batch: GateInput) -> Kept:
        """Choose matches."""
        ...

    def backward(self, batch: GateInput, kept: Kept, grad_f: Float[Tensor, "nnz"], grad_x_hat: Tensor) -> Flow:
        """Carry ∂loss/∂f of every kept match (and ∂loss/∂x_hat of every token) back to the encoder."""
        ...

    def inference(self, weights: Weights) -> Inference:
        """The rule of the finished dictionary."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What it remembers between steps, for checkpoints."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        ...


def temper_open_gate(weights: Weights, d_sae: int) -> None:
    """Shrink the encoder so that a gate that lets half of all latents through reconstructs its input at the start.

    For random unit rows tied to the decoder, `W_decᵀ relu(W_enc x)` is about `F / 2d · x`. Source: our own; without it
    the first error is many times the input's variance, and short trainings never quite recover (docs/results.md).

    Args:
        d_sae: F, of which `weights` may be a shard.
    """
    weights.W_enc.mul_(min(1.0, 2 * weights.W_enc.shape[1] / d_sae))
