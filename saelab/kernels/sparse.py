"""The backend for real work: no dense [B, F] beyond the scores it is given, no autograd through them."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.codes import SparseCodes, row_offsets
from saelab.kernels.reference import ReferenceBackend

_ORACLE = ReferenceBackend()


class SparseBackend:
    """Partial selection, embedding-bag sums and sampled products over the kept matches only.

    `torch.topk` leaves open which of several equal scores it takes. Each selection therefore asks for one score
    more than it needs: only where that runner-up equals the last winner is the choice ambiguous, and only there
    does the (slow, exact) reference decide.
    """

    name = "cpu"

    def select_token(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        B, d_sae = scores.shape
        k = min(k, d_sae)
        if k == d_sae:
            return _ORACLE.select_token(scores, k)
        top = torch.topk(scores, k + 1, dim=1)
        latents = top.indices[:, :k]
        tied = (top.values[:, k - 1] == top.values[:, k]).nonzero()[:, 0]
        if tied.numel():
            latents[tied] = _ORACLE.select_token(scores[tied], k).latents.view(-1, k)
        latents = latents.sort(dim=1).values
        offsets = torch.arange(0, B * k + 1, k, device=scores.device)
        return SparseCodes(scores.gather(1, latents).flatten(), latents.flatten(), offsets, d_sae, (B,))

    def select_mutual(self, scores: Float[Tensor, "B F"], budget: int) -> SparseCodes:
        flat = scores.flatten()
        if budget >= flat.numel():
            return _ORACLE.select_mutual(scores, budget)
        top = torch.topk(flat, budget + 1)
        kept = top.indices[:budget]
        last = top.values[budget - 1]
        if budget and last == top.values[budget]:
            # Everything above the tied score stays; its own places go to the lowest (token, latent) first.
            above = (flat > last).nonzero()[:, 0]
            kept = torch.cat([above, (flat == last).nonzero()[: budget - above.numel(), 0]])
        return _from_flat(scores, kept.sort().values)

    def select_feature(self, scores: Float[Tensor, "B F"], budgets: Int[Tensor, "F"]) -> SparseCodes:
        B = scores.shape[0]
        most = int(budgets.max())
        if most >= B:
            return _ORACLE.select_feature(scores, budgets)
        columns = scores.T.contiguous()  # [F, B]: each latent's scores lie together
        top = torch.topk(columns, most + 1, dim=1)
        within = torch.arange(most + 1, device=scores.device) < budgets[:, None]
        runner_up = top.values.gather(1, budgets[:, None])[:, 0]
        last = top.values.gather(1, (budgets - 1).clamp(min=0)[:, None])[:, 0]
        tied = ((last == runner_up) & (budgets > 0)).nonzero()[:, 0]
        if tied.numel():
            order = torch.sort(columns[tied], dim=1, descending=True, stable=True).indices
            top.indices[tied] = order[:, : most + 1]
        latents, places = within.nonzero(as_tuple=True)
        tokens = top.indices[latents, places]
        return _from_flat(scores, (tokens * scores.shape[1] + latents).sort().values)

    def decode(self, codes: SparseCodes, W_dec: Float[Tensor, "F d"]) -> Float[Tensor, "B d"]:
        return _bag(W_dec, codes.latents, codes.offsets, codes.values)

    def value_gradients(
        self, grad_x_hat: Float[Tensor, "B d"], codes: SparseCodes, W_dec: Float[Tensor, "F d"]
    ) -> Float[Tensor, "nnz"]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            pattern = torch.sparse_csr_tensor(
                codes.offsets, codes.latents, torch.zeros_like(codes.values),
                size=(codes.rows, codes.d_sae), check_invariants=False,
            )  # fmt: skip
        return torch.sparse.sampled_addmm(pattern, grad_x_hat, W_dec.T, beta=0.0).values()

    def row_gradients(
        self, codes: SparseCodes, coefficients: Float[Tensor, "nnz"], rows: Float[Tensor, "B d"]
    ) -> Float[Tensor, "F d"]:
        order, offsets = codes.by_latent
        return _bag(rows, codes.row_ids[order], offsets, coefficients[order])


def _bag(
    table: Float[Tensor, "rows d"], indices: Int[Tensor, "nnz"], offsets: Int[Tensor, "bags+1"], weights: Tensor
) -> Float[Tensor, "bags d"]:
    """Weighted sums of table rows; each bag is summed in order by one thread, so the result is reproducible."""
    if indices.numel() == 0:
        return table.new_zeros(offsets.shape[0] - 1, table.shape[1])
    return torch.nn.functional.embedding_bag(
        indices, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _from_flat(scores: Float[Tensor, "B F"], kept: Int[Tensor, "nnz"]) -> SparseCodes:
    """Codes at ascending flat positions `token · F + latent`."""
    B, d_sae = scores.shape
    tokens = torch.div(kept, d_sae, rounding_mode="floor")
    return SparseCodes(scores.flatten()[kept], kept - tokens * d_sae, row_offsets(tokens, B), d_sae, (B,))
