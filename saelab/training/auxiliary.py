"""The auxiliary loss: starved latents reconstruct what the living ones leave over."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.codes import SparseCodes
from saelab.kernels.product import Buffer
from saelab.ranks.axis import Axis
from saelab.training.config import AuxK, AuxZipf
from saelab.training.exchange import mean_row
from saelab.training.gates.gate import GateInput
from saelab.training.gradients import Gradients
from saelab.training.rows import MatchSums, Part, SomeRows

MATCHES = 4  # auxiliary matches for each main one: what keeps their part of a step's time small
FEWEST_TOKENS = 1024  # on which the loss is taken, where the batch has so many
AUXILIARY, AUXILIARY_MATCHES, AUXILIARY_ROWS = "auxiliary", "auxiliary matches", "auxiliary rows"


def auxiliary_size(aux: AuxK | AuxZipf, d_out: int) -> int:
    """k_aux: given, or the power of two nearest to d_out / 2 on a log scale."""
    return aux.k_aux or 2 ** max(0, round(math.log2(d_out / 2)))


def auxiliary_stride(aux: AuxK | AuxZipf, k_aux: int, k: int, batch: int) -> int:
    """Every how many-th token of a batch the loss is taken on: given, or so that there are about 4·k matches a token.

    Our own: a batch's tokens are shuffled, so that any part of them is a fair sample. What it costs and what it saves
    is in docs/performance.md.
    """
    return aux.stride or max(1, min(k_aux // (MATCHES * k), batch // FEWEST_TOKENS))


class _Starved(NamedTuple):
    """Starved latents as a dictionary of their own; or all latents, where it does not pay to single them out."""

    latents: Int[Tensor, "n"] | None

    def none_anywhere(self, shards: Axis) -> bool:
        """Whether no rank has any, as far as the backend asks; it is a question that all ranks answer alike."""
        some = 1 if self.latents is None else len(self.latents)
        if shards.size == 1:
            return some == 0
        # On the host, so that nobody waits for a GPU.
        return int(shards.sum(torch.tensor([some]), AUXILIARY)) == 0

    def rows(self, of_all: Float[Tensor, "F *d"]) -> Float[Tensor, "n *d"]:
        """Their rows of a table of all latents."""
        return of_all if self.latents is None else of_all.index_select(0, self.latents)

    def part(self, given: GateInput, codes: SparseCodes, coefficients: Tensor, inputs: Tensor) -> Part:
        """`Σ coefficient · input` over their matches, as a summand of a matrix's gradient."""
        if self.latents is None:
            return MatchSums(codes, coefficients, inputs, given.backend)
        return SomeRows(self.latents, given.backend.row_gradients(codes, coefficients, inputs))

    def add(self, sums: Float[Tensor, "F"], to_these: Float[Tensor, "n"]) -> None:
        """Add a number for each of them."""
        if self.latents is None:
            sums += to_these
        else:
            sums.index_add_(0, self.latents, to_these)


def auxiliary_gradients(
    given: GateInput,
    error: Float[Tensor, "B d_out"],
    deficit: Float[Tensor, "F"],
    k_aux: int,
    coefficient: float,
    gradients: Gradients,
    buffer: Buffer | None = None,
) -> Float[Tensor, ""]:
    """Let starved latents reconstruct the error; adds its gradients to `gradients` and returns the loss.

    `e_hat = Σ δ_i f_i W_dec[i]` over the `k_aux` latents of largest `z_i δ_i` per token (relu, no bias);
    `L = |e − e_hat|² / |e − mean(e)|²` times `coefficient · min(Σδ / k_aux, 1)`; 0 where the denominator is.
    With δ = 1 for dead latents and 0 for all others this is aux_k. Source: arXiv 2406.04093, A.2; with δ in between
    it is aux_zipf, arXiv 2411.02124, whose formula is our reading.

    Of several ranks each adds and returns its part of the sums.

    Args:
        given: the tokens that it is taken on: a whole batch, or some of it.
        error: their `target − x_hat`, a constant here.
        deficit: δ, between 0 (thriving) and 1 (dead).
        buffer: where z·δ is written; who asks again and again keeps one.
    """
    backend, weights, exchange, tokens = given.backend, given.weights, given.exchange, given.tokens
    data, shards = exchange.mesh.data, exchange.mesh.latent
    deficit = deficit.to(error.dtype)
    starved = _Starved(backend.starved(deficit))
    if starved.none_anywhere(shards):
        return error.new_zeros(())
    pull, W_dec = starved.rows(deficit), starved.rows(weights.W_dec)
    wanted = (buffer or Buffer()).take(len(error), len(pull), error)
    codes = backend.select_firing(torch.mul(given.z_of(starved.latents), pull, out=wanted), k_aux)
    residual = backend.decode(codes, W_dec) - error
    spread = data.sum((error - mean_row(data, error, tokens.total, AUXILIARY)).square().sum(), AUXILIARY)
    hunger = shards.sum(deficit.sum(), AUXILIARY)
    factor = torch.where(spread > 0, coefficient * (hunger / k_aux).clamp(max=1) / spread, 0.0)
    grad_e_hat = residual * (2 * factor)
    slope = pull.index_select(0, codes.latents) * (codes.values > 0)
    own_grad_z = backend.value_gradients(grad_e_hat, codes, W_dec) * slope
    seen, (grad_z,) = exchange.matches(codes, [own_grad_z], tokens, AUXILIARY_MATCHES)
    learnt = exchange.rows(grad_e_hat, tokens, AUXILIARY_ROWS)
    gradients.W_dec.parts.append(starved.part(given, seen, seen.values, learnt))
    gradients.W_enc.parts.append(starved.part(given, seen, grad_z, exchange.seen(given.everyone, tokens)))
    grad_b = backend.latent_sums(seen, grad_z)
    starved.add(gradients.b_enc, grad_b)
    if weights.is_tied_at_centre:
        gradients.b_dec -= exchange.share(grad_b) @ exchange.share(starved.rows(weights.W_enc))
    return factor * exchange.own_of_alike(residual).square().sum()
