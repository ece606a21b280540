"""Token and mutual choice at the price of a low-precision product, with a proof that fp32 would choose the same.

Row by row, for token choice:

1. The product in bf16 or int8 gives scores that are off by at most a known error per token.
2. About k of the best are scored again in fp32. The k-th of these, τ, is what it takes at least to be kept.
3. Whatever scored τ less the error is scored again too. Everything else is below τ for certain.
4. Of all that was scored in fp32 the k best are kept. Where the next one is so close that fp32 sums of the same
   numbers in another order could swap them, or where step 3 left too many, the fp32 product decides instead.

Mutual choice goes the same way with one τ for the whole batch, and in step 4 the fp32 product decides for the tokens
that have a score in doubt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels import selection
from saelab.kernels.codes import SparseCodes, row_offsets
from saelab.kernels.product import Buffer
from saelab.kernels.rounded import FP32_ROUNDING, Precision, RoundedProduct
from saelab.kernels.selection import Picks
from saelab.kernels.sparse import SparseBackend

SUM_ROUNDINGS = 128  # between two fp32 sums of about a thousand products, each taken in 16 lanes or more
MOST_GROUPS = 16  # groups of candidates per wanted match above which the fp32 product is cheaper
ROWS_AT_ONCE = 512  # whose candidates are gathered together


@dataclass
class Certificate:
    """Counted over a backend's life."""

    rows: int = 0
    redone: int = 0
    """Rows that were not provably exact and were done in fp32."""

    @property
    def share(self) -> float:
        """Of rows whose selection in low precision is provably that of fp32."""
        return 1 - self.redone / max(1, self.rows)


class ScoringBackend(SparseBackend):
    """The CPU backend with `encode_token` and `encode_mutual`, which do without the fp32 product."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.name = f"cpu-{precision}"
        self.precision: Precision = precision
        self.certificate = Certificate()
        self._raw = Buffer.shared(f"{precision} scores")

    def encode_token(
        self, centred: Float[Tensor, "B d"], W_enc: Float[Tensor, "F d"], b_enc: Float[Tensor, "F"], k: int
    ) -> SparseCodes:
        """The k largest of every row of `centred @ W_encᵀ + b_enc`: what `select_token` takes of the fp32 product."""
        B, d_sae = len(centred), len(W_enc)
        if B == 0 or 2 * k * selection.group_size(d_sae) > d_sae:  # too few groups for bounds
            return self._in_fp32(centred, W_enc, b_enc, k)
        scores = RoundedProduct(centred, W_enc, b_enc, self.precision, self._raw)
        if not _is_finite(scores):
            return self._in_fp32(centred, W_enc, b_enc, k)
        picks, certain = self._certified(scores, _order_error(scores), centred, W_enc, k)
        self.certificate.rows += B
        again = (~certain).nonzero()[:, 0]
        if len(again):
            self.certificate.redone += len(again)
            codes = self._in_fp32(centred.index_select(0, again), W_enc, b_enc, k)
            places = again.index_select(0, codes.row_ids) * d_sae + codes.latents
            places, order = torch.sort(torch.cat([picks.places, places]))
            picks = Picks(torch.cat([picks.values, codes.values]).index_select(0, order), places)
        return _codes(picks, B, d_sae)

    def _certified(
        self,
        scores: RoundedProduct,
        order_error: Float[Tensor, "B"],
        centred: Float[Tensor, "B d"],
        W_enc: Float[Tensor, "F d"],
        k: int,
    ) -> tuple[Picks, Tensor]:
        """Choices of the rows that are certain, and which these are."""
        B, d_sae = len(centred), len(W_enc)

        first_bound = selection.row_bounds(scores.maxima, scores.maxima, torch.full((B,), k))
        first = _not_below(scores, first_bound)
        first_rows = _rows(first, d_sae)
        first_values = self._exact(first.places, centred, W_enc, scores.b)
        ranks = selection.ranks(first_values, first_rows, torch.bincount(first_rows, minlength=B))
        worst = _at_rank(k - 1, first_values, first_rows, ranks, B)

        bound = torch.minimum(first_bound, scores.lowest(worst - order_error))
        hopeless = (scores.maxima >= bound[:, None]).sum(1) > MOST_GROUPS * k
        second = _not_below(scores, bound.masked_fill(hopeless, torch.inf))
        rows = _rows(second, d_sae)
        known = second.values >= first_bound.index_select(0, rows)
        values = torch.empty_like(second.values)
        values[known] = first_values.masked_select(~hopeless.index_select(0, first_rows))
        values[~known] = self._exact(second.places.masked_select(~known), centred, W_enc, scores.b)

        ranks = selection.ranks(values, rows, torch.bincount(rows, minlength=B))
        last, runner_up = (_at_rank(rank, values, rows, ranks, B) for rank in (k - 1, k))
        certain = ~hopeless & (last - runner_up > order_error)
        wins = (ranks < k) & certain.index_select(0, rows)
        return Picks(values.masked_select(wins), second.places.masked_select(wins)), certain

    def encode_mutual(
        self, centred: Float[Tensor, "B d"], W_enc: Float[Tensor, "F d"], b_enc: Float[Tensor, "F"], budget: int
    ) -> SparseCodes:
        """The `budget` largest of the whole `centred @ W_encᵀ + b_enc`: what `select_mutual` takes of it in fp32."""
        B, d_sae = len(centred), len(W_enc)
        few = 0 < 2 * budget * selection.group_size(d_sae) <= B * d_sae  # enough groups for a bound
        scores = RoundedProduct(centred, W_enc, b_enc, self.precision, self._raw) if few else None
        picks = self._best_of_all(scores, centred, W_enc, budget) if scores is not None and _is_finite(scores) else None
        if picks is None:
            return self.select_mutual(self.pre_activations(centred, W_enc, b_enc, by_latent=False), budget)
        return _codes(picks, B, d_sae)

    def _best_of_all(
        self, scores: RoundedProduct, centred: Float[Tensor, "B d"], W_enc: Float[Tensor, "F d"], budget: int
    ) -> Picks | None:
        """The batch's `budget` best; None when the fp32 product is cheaper."""
        order_error = _order_error(scores)
        most = order_error.amax()
        first_bound = selection.guess(scores.maxima.view(-1), budget).expand(len(centred))
        first = _not_below(scores, first_bound)
        if len(first.places) < budget:
            first_bound = selection.largest(scores.maxima.view(-1), budget).expand(len(centred))
            first = _not_below(scores, first_bound)
        first_values = self._exact(first.places, centred, W_enc, scores.b)
        worst = selection.largest(first_values, budget)

        # fp32 in another order takes at most `most` from the last of the best, and gives a rival its own error.
        bound = torch.minimum(first_bound, scores.lowest(worst - most - order_error))
        if int((scores.maxima >= bound[:, None]).sum()) > MOST_GROUPS * budget:
            return None
        second = _not_below(scores, bound)
        known = second.values >= first_bound[0]
        values = torch.empty_like(second.values)
        values[known] = first_values
        values[~known] = self._exact(second.places.masked_select(~known), centred, W_enc, scores.b)
        return self._settled(Picks(values, second.places), most + order_error, scores, centred, W_enc, budget)

    def _settled(
        self,
        found: Picks,
        margin: Float[Tensor, "B"],
        scores: RoundedProduct,
        centred: Float[Tensor, "B d"],
        W_enc: Float[Tensor, "F d"],
        budget: int,
    ) -> Picks:
        """The `budget` best of what was found; tokens with a score within `margin` of the last are done in fp32."""
        B, d_sae = len(centred), len(W_enc)
        rows, last = _rows(found, d_sae), selection.largest(found.values, budget)
        margins = margin.index_select(0, rows)
        wins = found.values > last + margins
        doubtful = (~wins & (found.values >= last - margins)).nonzero()[:, 0]
        again = torch.zeros(B, dtype=torch.bool).index_fill_(0, rows.index_select(0, doubtful), True)
        self.certificate.rows += B
        self.certificate.redone += int(again.sum())
        redone = again.index_select(0, rows).nonzero()[:, 0]
        z = self.pre_activations(centred[again], W_enc, scores.b, by_latent=False)
        place = (again.cumsum(0) - 1).index_select(0, rows.index_select(0, redone))
        values = found.values.index_copy(0, redone, z[place, found.places.index_select(0, redone) % d_sae])
        best = torch.sort(values.index_select(0, doubtful), descending=True, stable=True).indices
        wins[doubtful.index_select(0, best[: budget - int(wins.sum())])] = True
        return Picks(values.masked_select(wins), found.places.masked_select(wins))

    def _exact(
        self,
        places: Int[Tensor, "n"],
        centred: Float[Tensor, "B d"],
        W_enc: Float[Tensor, "F d"],
        b: Float[Tensor, "F"],
    ) -> Float[Tensor, "n"]:
        """Scores in fp32 at some places."""
        codes = _codes(Picks(centred.new_zeros(len(places)), places), len(centred), len(W_enc))
        return self.value_gradients(centred, codes, W_enc) + b.index_select(0, codes.latents)

    def _in_fp32(self, centred: Tensor, W_enc: Tensor, b_enc: Tensor, k: int) -> SparseCodes:
        return self.select_token(self.pre_activations(centred, W_enc, b_enc, by_latent=False), k)


def _is_finite(scores: RoundedProduct) -> bool:
    return bool((scores.error + scores.b.abs().max()).isfinite().all())


def _order_error(scores: RoundedProduct) -> Float[Tensor, "B"]:
    """How far two fp32 sums of a token's products can be apart."""
    return SUM_ROUNDINGS * FP32_ROUNDING * scores.longest_W * (scores.x.norm + scores.x.miss)


def _not_below(scores: RoundedProduct, bounds: Float[Tensor, "B"]) -> Picks:
    """Every score of a token that is not below the token's bound."""
    count, size = scores.maxima.shape[1], scores.size
    parts = []
    for start in range(0, len(bounds), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        groups = (scores.maxima[some] >= bounds[some, None]).view(-1).nonzero()[:, 0] + start * count
        members = scores.members(groups)
        own = bounds.index_select(0, torch.div(groups, count, rounding_mode="floor"))
        within = (members >= own[:, None]).view(-1).nonzero()[:, 0]
        owner = torch.div(within, size, rounding_mode="floor")
        places = groups.index_select(0, owner) * size + (within - owner * size)
        parts.append(Picks(members.view(-1).index_select(0, within), places))
    return Picks(torch.cat([part.values for part in parts]), torch.cat([part.places for part in parts]))


def _rows(picks: Picks, d_sae: int) -> Int[Tensor, "n"]:
    return torch.div(picks.places, d_sae, rounding_mode="floor")


def _at_rank(
    rank: int, values: Float[Tensor, "n"], rows: Int[Tensor, "n"], ranks: Int[Tensor, "n"], B: int
) -> Float[Tensor, "B"]:
    """Every row's value of this rank, −inf where there is none."""
    chosen = (ranks == rank).nonzero()[:, 0]
    at_rank = values.new_full((B,), -torch.inf)
    return at_rank.scatter_(0, rows.index_select(0, chosen), values.index_select(0, chosen))


def _codes(picks: Picks, B: int, d_sae: int) -> SparseCodes:
    rows = _rows(picks, d_sae)
    return SparseCodes(picks.values, picks.places - rows * d_sae, row_offsets(rows, B), d_sae, (B,))
