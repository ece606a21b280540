"""The backend of a rank among several: it selects what one process would select of the whole batch and dictionary."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes
from saelab.kernels.keys import lowest, ordered
from saelab.kernels.merging import winners
from saelab.kernels.radix import threshold
from saelab.kernels.scoring import ScoringBackend
from saelab.ranks.axis import Axis
from saelab.ranks.mesh import Mesh

TOKEN, MUTUAL, FEATURE, AUXILIARY = "token choice", "mutual choice", "feature choice", "auxiliary choice"
RECONSTRUCTION = "reconstruction"
SURPLUS = 1.25  # a rank offers so many times its share of the last mutual choice; where that is too little, all


class SharedBackend:
    """Scores, codes and matrices are this rank's part; budgets are those of all ranks together.

    A rank holds the scores `[B_d, F_l]` of its own tokens and latents and gets its own matches, latents numbered within
    its shard. Whatever is not a selection and not `decode` is the local backend's. Every rank calls the same methods in
    the same order; ranks in order hold tokens and latents in order, so ties go as in one process. What travels are
    scores as keys of 4 bytes (8 for float64): an offer that is too short is filled up, so that nobody has to be told
    another's size.

    Bytes a rank receives, with N = D·L ranks, B_d tokens of its own and keys of w = 4 bytes:

    - token choice: `(L − 1) · w · B_d · k`; auxiliary choice the same with k_aux and the tokens that are looked at
    - feature choice: `(D − 1) · w · Σ budgets` over its own latents
    - mutual choice: `2 (N − 1) / N · 8 · (2¹¹ + 2¹¹ + 2¹⁰ + 1)` whatever the batch, and the same again in the rare case
      that a rank has offered too little; where only q of several equal scores win, `(N − 1) · 8 · q` and a number of
      8 bytes from each other rank of both axes more
    - reconstruction: `2 (L − 1) / L · w · B_d · d_out` for every `decode`
    """

    def __init__(self, local: Backend, mesh: Mesh) -> None:
        self.local, self.mesh = local, mesh
        self.name = local.name
        self.pre_activations, self.starved = local.pre_activations, local.starved
        self.value_gradients, self.row_gradients = local.value_gradients, local.row_gradients
        self.latent_sums, self.passes, self.adam = local.latent_sums, local.passes, local.adam
        self._share = 1.0  # of the last mutual choice that was this rank's

    def select_token(self, scores: Float[Tensor, "B_d F_l"], k: int) -> SparseCodes:
        """The k largest of every row over `mesh.latent`, of which these codes have this rank's."""
        return self._best_of_tokens(self.local.select_token(scores, min(k, scores.shape[1])), k, TOKEN)

    def select_mutual(self, scores: Float[Tensor, "B_d F_l"], budget: int) -> SparseCodes:
        """The `budget` largest of all ranks' scores."""
        most = min(budget, scores.numel())
        few = min(most, 1 + int(SURPLUS * self._share * budget))
        codes = self._best_of_world(self.local.select_mutual(scores, few), budget, is_all=few == most)
        if codes is None:
            codes = self._best_of_world(self.local.select_mutual(scores, most), budget, is_all=True)
        assert codes is not None  # all ranks have offered all that could win
        self._share = codes.nnz / max(1, budget)
        return codes

    def select_feature(self, scores: Float[Tensor, "B_d F_l"], budgets: Int[Tensor, "F_l"]) -> SparseCodes:
        """The `budgets[i]` largest of every own latent i over `mesh.data`.

        Args:
            budgets: of the own latents, for the tokens of all ranks; the same on all ranks of `mesh.data`.
        """
        codes = self.local.select_feature(scores, budgets.clamp(max=len(scores)))
        if self.mesh.data.size == 1:
            return codes
        total = int(budgets.sum())
        budgets = budgets.to(scores.device, non_blocking=True)
        order, offsets = codes.by_latent
        latents = codes.latents.index_select(0, order)
        within = torch.arange(codes.nnz, device=scores.device) - offsets.index_select(0, latents)
        places = torch.empty_like(latents)
        places[order] = (budgets.cumsum(0) - budgets).index_select(0, latents) + within
        return self._merged(codes, places, budgets, total, self.mesh.data, FEATURE)

    def select_firing(self, scores: Float[Tensor, "B_d F_l"], k: int) -> SparseCodes:
        """Of the k largest of every row over `mesh.latent` this rank's, those above 0; ranks may differ in latents."""
        return self._best_of_tokens(self.local.select_firing(scores, min(k, scores.shape[1])), k, AUXILIARY)

    def decode(self, codes: SparseCodes, W_dec: Float[Tensor, "F_l d"]) -> Float[Tensor, "B_d d"]:
        """Sum over a row's matches on all ranks of `mesh.latent`; the same bits on each."""
        return self.mesh.latent.sum(self.local.decode(codes, W_dec), RECONSTRUCTION)

    def _best_of_tokens(self, offer: SparseCodes, k: int, purpose: str) -> SparseCodes:
        """Of a token's best on every rank, at most k, the k best."""
        if self.mesh.latent.size == 1:
            return offer
        device = offer.latents.device
        within = torch.arange(offer.nnz, device=device) - offer.offsets.index_select(0, offer.row_ids)
        budgets = torch.full((offer.rows,), k, device=device)
        return self._merged(offer, offer.row_ids * k + within, budgets, offer.rows * k, self.mesh.latent, purpose)

    def _merged(
        self,
        offer: SparseCodes,
        places: Int[Tensor, "nnz"],
        budgets: Int[Tensor, "S"],
        total: int,
        axis: Axis,
        purpose: str,
    ) -> SparseCodes:
        """What the ranks of `axis` offer, merged segment by segment; every match lies at its place of a segment."""
        keys = ordered(offer.values)
        offered = torch.full((total,), lowest(keys), dtype=keys.dtype, device=keys.device).scatter_(0, places, keys)
        parts = axis.gather(offered, purpose).view(axis.size, total)
        return offer.keep(winners(parts, budgets, axis.index).index_select(0, places))

    def _best_of_world(self, offer: SparseCodes, budget: int, is_all: bool) -> SparseCodes | None:
        """The `budget` best of what all ranks offer; None on all ranks where one has offered too little to be sure.

        Args:
            is_all: whether the offer is `budget` matches or all there are. Else it is enough if it reaches below the
                last of the best: what was left out is no better than the least that is offered.
        """
        if budget == 0:
            return offer
        keys = ordered(offer.values)
        last = threshold(keys, budget, lambda counts: self.mesh.world.sum(counts, MUTUAL))
        short = torch.zeros_like(last.tied) if is_all else (keys.amin() >= last.key).long()
        # Numbers of all ranks, so that all of them go on alike.
        quota, tied, short = torch.stack([last.quota, last.tied, self.mesh.world.sum(short, MUTUAL)]).tolist()
        if short:
            return None
        wins = keys >= last.key if quota == tied else (keys > last.key) | self._first(offer, keys == last.key, quota)
        return offer.keep(wins)

    def _first(self, offer: SparseCodes, tied: Bool[Tensor, "nnz"], quota: int) -> Bool[Tensor, "nnz"]:
        """Of all ranks' tied matches the `quota` first, in the order of (token, latent) of the whole batch."""
        tokens, _ = self._before(self.mesh.data, offer.rows, offer.latents.device)
        latents, d_sae = self._before(self.mesh.latent, offer.d_sae, offer.latents.device)
        places = (offer.row_ids + tokens) * d_sae + offer.latents + latents
        own = places[tied][:quota]
        offered = torch.full((quota,), torch.iinfo(torch.int64).max, device=own.device)
        offered[: len(own)] = own
        last = self.mesh.world.gather(offered, MUTUAL).kthvalue(quota).values
        return tied & (places <= last)

    def _before(self, axis: Axis, own: int, device: torch.device) -> tuple[Int[Tensor, ""], Int[Tensor, ""]]:
        """What the ranks before this one have, and what all have together."""
        sizes = axis.gather(torch.full((1,), own, device=device), MUTUAL)
        return sizes[: axis.index].sum(), sizes.sum()


class SharedScoringBackend(SharedBackend):
    """The same around a backend that does without the fp32 product.

    Each rank's candidates are provably those of fp32; scores of two ranks that differ by a rounding of fp32 sums alone
    may be ranked either way, as they may between two shapes of the fp32 product.
    """

    def __init__(self, local: ScoringBackend, mesh: Mesh) -> None:
        super().__init__(local, mesh)
        self.scoring = local

    def encode_token(
        self, centred: Float[Tensor, "B_d d"], W_enc: Float[Tensor, "F_l d"], b_enc: Float[Tensor, "F_l"], k: int
    ) -> SparseCodes:
        """What `select_token` takes of the product."""
        offer = self.scoring.encode_token(centred, W_enc, b_enc, min(k, len(W_enc)))
        return self._best_of_tokens(offer, k, TOKEN)

    def encode_mutual(
        self, centred: Float[Tensor, "B_d d"], W_enc: Float[Tensor, "F_l d"], b_enc: Float[Tensor, "F_l"], budget: int
    ) -> SparseCodes:
        """What `select_mutual` takes of the product."""
        offer = self.scoring.encode_mutual(centred, W_enc, b_enc, min(budget, len(centred) * len(W_enc)))
        codes = self._best_of_world(offer, budget, is_all=True)
        assert codes is not None
        return codes
