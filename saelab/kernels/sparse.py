"""The backend for real work on a CPU: no dense [B, F] beyond the scores it is given, no autograd through them."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim.adam import adam

from saelab.kernels import dense
from saelab.kernels.allocator import keep_freed_memory
from saelab.kernels.backend import AdamStep
from saelab.kernels.codes import SparseCodes, row_offsets
from saelab.kernels.product import Buffer, affine
from saelab.kernels.selection import Picks, best_of_all, best_of_rows

ROWS_AT_ONCE = 2048  # gradient, weight and moments of so many rows, 25 MB of fp32 at d = 768, stay in cache
REUSE = 32  # matches per table row from which narrow column blocks, which stay in the L2 cache, pay for their copies
BLOCK_ELEMENTS = 2**18  # of such a block: 1 MB of fp32
NARROWEST = 64  # columns
FEW = 1 / 4  # of all latents: so many are worth a table of their own


class SparseBackend:
    """Partial selection, embedding-bag sums and sampled products over the kept matches only.

    Where so many pairs are kept that a dense product is cheaper (relu without a budget, early in training), it is
    taken, tile by tile.
    """

    name = "cpu"

    def __init__(self) -> None:
        keep_freed_memory()
        self._scores = Buffer.shared("scores")

    def pre_activations(
        self, centred: Float[Tensor, "B d"], W_enc: Float[Tensor, "F d"], b_enc: Float[Tensor, "F"], by_latent: bool
    ) -> Float[Tensor, "B F"]:
        return affine(centred, W_enc, b_enc, self._scores, by_latent)

    def select_token(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        budgets = torch.full((len(scores),), min(k, scores.shape[1]), device=scores.device)
        return _by_token(best_of_rows(scores.contiguous(), budgets), scores.shape)

    def select_mutual(self, scores: Float[Tensor, "B F"], budget: int) -> SparseCodes:
        return _by_token(best_of_all(scores.contiguous(), budget), scores.shape)

    def select_feature(self, scores: Float[Tensor, "B F"], budgets: Int[Tensor, "F"]) -> SparseCodes:
        B, d_sae = scores.shape
        picks = best_of_rows(scores.T.contiguous(), budgets.to(scores.device))  # a latent's scores are a row there
        latents = torch.div(picks.places, B, rounding_mode="floor")
        places = (picks.places - latents * B) * d_sae + latents
        order = torch.sort(places).indices
        return _by_token(Picks(picks.values.index_select(0, order), places.index_select(0, order)), scores.shape)

    def select_firing(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        fires = scores > 0
        if not bool((fires.sum(1) > k).any()):
            return SparseCodes.from_mask(scores, fires)
        return self.select_token(scores, k).positive()

    def starved(self, deficit: Float[Tensor, "F"]) -> Int[Tensor, "n"] | None:
        latents = deficit.nonzero()[:, 0]
        return latents if len(latents) <= FEW * len(deficit) else None

    def decode(self, codes: SparseCodes, W_dec: Float[Tensor, "F d"]) -> Float[Tensor, "B d"]:
        if dense.sums_are_cheaper(codes):
            return dense.decode(codes, W_dec)
        return _bag(W_dec, codes.latents, codes.offsets, codes.values)

    def value_gradients(
        self, grad_x_hat: Float[Tensor, "B d"], codes: SparseCodes, W_dec: Float[Tensor, "F d"]
    ) -> Float[Tensor, "nnz"]:
        if dense.values_are_cheaper(codes):
            return dense.value_gradients(grad_x_hat, codes, W_dec)
        # Latent by latent every row of W_dec is read once; grad_x_hat, read again and again, fits the cache.
        order, offsets = codes.by_latent
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            pattern = torch.sparse_csr_tensor(
                offsets, codes.row_ids.index_select(0, order), torch.zeros_like(codes.values),
                size=(codes.d_sae, codes.rows), check_invariants=False,
            )  # fmt: skip
        by_latent = torch.sparse.sampled_addmm(pattern, W_dec, grad_x_hat.T, beta=0.0).values()
        return torch.empty_like(by_latent).scatter_(0, order, by_latent)

    def row_gradients(
        self,
        codes: SparseCodes,
        coefficients: Float[Tensor, "nnz"],
        rows: Float[Tensor, "B d"],
        latents: range | None = None,
    ) -> Float[Tensor, "n d"]:
        within = range(codes.d_sae) if latents is None else latents
        if dense.sums_are_cheaper(codes):
            return dense.row_gradients(codes, coefficients, rows)[within.start : within.stop]
        order, offsets = codes.by_latent
        offsets = offsets[within.start : within.stop + 1]
        first, end = int(offsets[0]), int(offsets[-1])
        own = codes.rows_by_latent[first:end]
        return _bag(rows, own, offsets - first, coefficients.index_select(0, order[first:end]))

    def latent_sums(self, codes: SparseCodes, of_matches: Float[Tensor, "nnz"]) -> Float[Tensor, "F"]:
        return torch.bincount(codes.latents, weights=of_matches, minlength=codes.d_sae).to(of_matches.dtype)

    def passes(self, codes: SparseCodes) -> list[range]:
        height = codes.d_sae if dense.sums_are_cheaper(codes) else ROWS_AT_ONCE
        return [range(start, min(start + height, codes.d_sae)) for start in range(0, codes.d_sae, height)]

    def adam(
        self,
        weight: Float[Tensor, "n *d"],
        gradient: Float[Tensor, "n *d"],
        mean: Float[Tensor, "n *d"],
        square: Float[Tensor, "n *d"],
        step: AdamStep,
        unit_rows: bool,
    ) -> None:
        if step.frozen is not None and bool(step.frozen):
            return
        if unit_rows:
            gradient.addcmul_((gradient * weight).sum(1, keepdim=True), weight, value=-1)
        before = torch.tensor(float(step.number - 1), device=weight.device)  # torch counts it up itself
        adam(
            [weight], [gradient], [mean], [square], [], [before], fused=True, amsgrad=False, maximize=False,
            beta1=step.beta1, beta2=step.beta2, lr=step.lr, weight_decay=0.0, eps=step.epsilon,
        )  # fmt: skip
        if unit_rows:
            weight.div_(torch.linalg.vector_norm(weight, dim=1, keepdim=True))


def _bag(
    table: Float[Tensor, "rows d"],
    indices: Int[Tensor, "nnz"],
    offsets: Int[Tensor, "bags+1"],
    weights: Float[Tensor, "nnz"],
) -> Float[Tensor, "bags d"]:
    """Weighted sums of table rows; each bag is summed in order by one thread, so the result is reproducible."""
    rows, width = table.shape
    if indices.numel() == 0:
        return table.new_zeros(len(offsets) - 1, width)
    columns = max(NARROWEST, BLOCK_ELEMENTS // rows) if indices.numel() >= REUSE * rows else width
    indices, offsets = indices.int(), offsets.int()
    blocks = [
        torch.nn.functional.embedding_bag(
            indices, block.contiguous(), offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
        )
        for block in table.split(columns, dim=1)
    ]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def _by_token(picks: Picks, shape: torch.Size) -> SparseCodes:
    """Codes at ascending places `token · F + latent`."""
    B, d_sae = shape
    tokens = torch.div(picks.places, d_sae, rounding_mode="floor")
    return SparseCodes(picks.values, picks.places - tokens * d_sae, row_offsets(tokens, B), d_sae, (B,))
