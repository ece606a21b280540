"""Gradients of a dictionary's losses, written out: they exist only at kept matches, so no dense backward is needed.

Shape legend: B tokens · d = d_in · F = d_sae · nnz kept matches. Inputs are scaled, `centred = x − centre`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes
from saelab.training.exchange import Exchange, Tokens
from saelab.training.gates.gate import Flow, GateInput
from saelab.training.reconstruction import Reconstruction, Ring, ring
from saelab.training.rows import MatchSums, RowGradient

VECTORS = "vectors"  # what the ranks add up latent by latent


@dataclass
class Gradients:
    """∂L of every trained tensor, in the tensor's own shape; those of the matrices row by row.

    Of several ranks each has its part of the sums, which `add_up` completes but for the matrices (`optimizer.py`).
    """

    W_enc: RowGradient
    W_dec: RowGradient
    b_enc: Float[Tensor, "F"]
    b_dec: Float[Tensor, "d_out"]
    extra: dict[str, Tensor] = field(default_factory=dict)

    def add_up(self, exchange: Exchange) -> None:
        """Complete the vectors by the other ranks' parts."""
        mesh = exchange.mesh
        self.b_enc = exchange.summed.sum(self.b_enc, VECTORS)
        self.extra = {name: mesh.data.sum(part, VECTORS) for name, part in self.extra.items()}
        self.b_dec = mesh.world.sum(self.b_dec, "b_dec")

    def vectors(self) -> dict[str, Tensor]:
        """Of everything but the matrices."""
        return {"b_enc": self.b_enc, "b_dec": self.b_dec, **self.extra}

    def named(self) -> dict[str, Tensor]:
        """Of everything, the matrices' whole."""
        return {"W_enc": self.W_enc.whole(), "W_dec": self.W_dec.whole(), **self.vectors()}


def step_gradients(
    given: GateInput, codes: SparseCodes, reconstruction: Reconstruction, flow: Flow
) -> tuple[Gradients, SparseCodes]:
    """Backward of `x_hat = W_decᵀ f + b_dec`, `z = W_enc (x − centre) + b_enc`, given what the gate carried back.

    Returns:
        This rank's part of the sums, until `Gradients.add_up`; and the kept matches of all tokens that it sees.
    """
    weights, backend, exchange, tokens = given.weights, given.backend, given.exchange, given.tokens
    own_biases = [] if flow.bias is flow.z else [flow.bias]
    seen, (grad_z, *biases) = exchange.matches(codes, [flow.z, *own_biases], tokens)
    sums = backend.latent_sums(seen, grad_z)
    grad_b_dec = exchange.own_of_alike(reconstruction.grad_x_hat).sum(0)
    if weights.is_tied_at_centre:
        grad_b_dec = grad_b_dec - exchange.share(sums) @ exchange.share(weights.W_enc)  # in x_hat, and inside z
    inputs = exchange.seen(given.everyone, tokens)
    gradients = Gradients(
        W_enc=RowGradient(weights.W_enc, [MatchSums(seen, grad_z, inputs, backend)]),
        W_dec=RowGradient(
            weights.W_dec, [_of_ring(ring, codes, seen, tokens, exchange, backend) for ring in reconstruction.rings]
        ),
        b_enc=backend.latent_sums(seen, biases[0]) if biases else sums,
        b_dec=grad_b_dec,
        extra=flow.extra,
    )
    return gradients, seen


def _of_ring(
    own: Ring, codes: SparseCodes, seen: SparseCodes, tokens: Tokens, exchange: Exchange, backend: Backend
) -> MatchSums:
    """Gradient of a ring's decoder rows."""
    inside = own.codes if seen is codes else ring(seen, own.low, own.high)[0]
    return MatchSums(inside, inside.values, exchange.rows(own.grad_x_hat, tokens), backend, first=own.low)
