"""SparseCodes: the one sparse type that flows from selection through decode, losses and metrics to the app."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class LatentOrder(NamedTuple):
    """The matches regrouped by latent: `order` lists match numbers, latent i owns `order[offsets[i]:offsets[i+1]]`."""

    order: Int[Tensor, "nnz"]
    offsets: Int[Tensor, "F+1"]


@dataclass(frozen=True, eq=False)
class SparseCodes:
    """Codes of a batch in CSR: row t (a token) owns matches `offsets[t]:offsets[t+1]`.

    Within a row latents are in ascending order, each at most once.

    Attributes:
        values: activation of every kept match, `[nnz]`, in the dictionary's own (scaled) units.
        latents: index of its latent, `[nnz]`, int64.
        offsets: first match of every row and the end, `[rows + 1]`, int64.
        d_sae: number of latents F.
        shape: leading shape of what was encoded, `x[*shape, d_in]`; its product is the number of rows.
    """

    values: Float[Tensor, "nnz"]
    latents: Int[Tensor, "nnz"]
    offsets: Int[Tensor, "rows+1"]
    d_sae: int
    shape: tuple[int, ...]

    @classmethod
    def from_mask(cls, values: Float[Tensor, "rows F"], mask: Tensor) -> SparseCodes:
        """Keep `values` where `mask` (bool, same shape) is set."""
        count, d_sae = mask.shape
        places = mask.reshape(-1).nonzero()[:, 0]
        rows = torch.div(places, d_sae, rounding_mode="floor")
        kept = values.reshape(-1).index_select(0, places)
        return cls(kept, places - rows * d_sae, row_offsets(rows, count), d_sae, (count,))

    @property
    def rows(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def nnz(self) -> int:
        return self.latents.shape[0]

    @cached_property
    def row_ids(self) -> Int[Tensor, "nnz"]:
        """Row of every match."""
        return torch.repeat_interleave(
            torch.arange(self.rows, device=self.latents.device), self.counts, output_size=self.nnz
        )

    @property
    def counts(self) -> Int[Tensor, "rows"]:
        """Matches per row."""
        return self.offsets.diff()

    @cached_property
    def by_latent(self) -> LatentOrder:
        """Matches sorted by latent (rows ascending within one): what row-sparse gradients and statistics need."""
        order = torch.sort(self.latents.int(), stable=True).indices  # half the bytes, half the time
        return LatentOrder(order, row_offsets(self.latents, self.d_sae))

    @cached_property
    def rows_by_latent(self) -> Int[Tensor, "nnz"]:
        """Row of every match, sorted by latent; int32, which sums over rows read twice as fast."""
        return self.row_ids.index_select(0, self.by_latent.order).int()

    def fired(self) -> Int[Tensor, "F"]:
        """How many rows each latent holds with a positive value."""
        counts = torch.zeros(self.d_sae, dtype=torch.int64, device=self.latents.device)
        return counts.index_add_(0, self.latents, (self.values > 0).long())

    def with_values(self, values: Float[Tensor, "nnz"]) -> SparseCodes:
        """The same matches with other values."""
        return replace(self, values=values)

    def keep(self, mask: Tensor) -> SparseCodes:
        """Only the matches where `mask` (bool, `[nnz]`) is set."""
        kept = mask.nonzero()[:, 0]
        before = torch.zeros(self.nnz + 1, dtype=torch.int64, device=mask.device)
        torch.cumsum(mask, 0, out=before[1:])
        return replace(
            self,
            values=self.values.index_select(0, kept),
            latents=self.latents.index_select(0, kept),
            offsets=before.index_select(0, self.offsets),
        )

    def positive(self) -> SparseCodes:
        """Only the matches that fire (value > 0)."""
        fires = self.values > 0
        return self if bool(fires.all()) else self.keep(fires)

    def take(self, start: int, stop: int) -> SparseCodes:
        """Rows `start:stop` as codes of their own."""
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        return SparseCodes(
            self.values[low:high],
            self.latents[low:high],
            self.offsets[start : stop + 1] - low,
            self.d_sae,
            (stop - start,),
        )

    def rows_where(self, mask: Bool[Tensor, "rows"]) -> SparseCodes:
        """Some of the rows as codes of their own."""
        counts = self.counts[mask]
        some = self.keep(mask[self.row_ids])
        offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return replace(some, offsets=offsets, shape=(len(counts),))

    def reshape(self, *shape: int) -> SparseCodes:
        """The same rows under another leading shape."""
        return replace(self, shape=shape)

    def to(self, device: torch.device | str) -> SparseCodes:
        return replace(
            self, values=self.values.to(device), latents=self.latents.to(device), offsets=self.offsets.to(device)
        )

    def to_dense(self) -> Float[Tensor, "*shape F"]:
        """Dense codes; for probes and tests on few rows, never for a whole batch in a loop."""
        dense = self.values.new_zeros(self.rows, self.d_sae)
        dense[self.row_ids, self.latents] = self.values
        return dense.reshape(*self.shape, self.d_sae)


def row_offsets(ids: Int[Tensor, "nnz"], rows: int) -> Int[Tensor, "rows+1"]:
    """CSR offsets from the row of every match; the order of `ids` does not matter.

    Not `bincount`, for which the host would have to wait to learn the largest id.
    """
    offsets = torch.zeros(rows + 1, dtype=torch.int64, device=ids.device)
    offsets[1:].index_add_(0, ids, torch.ones_like(ids))
    return offsets.cumsum(0)


def concatenate(parts: list[SparseCodes]) -> SparseCodes:
    """Stack codes of consecutive rows."""
    first = parts[0]
    ends = torch.cumsum(torch.tensor([part.nnz for part in parts]), 0).tolist()
    offsets = [first.offsets] + [part.offsets[1:] + end for part, end in zip(parts[1:], ends, strict=False)]
    return SparseCodes(
        torch.cat([part.values for part in parts]),
        torch.cat([part.latents for part in parts]),
        torch.cat(offsets),
        first.d_sae,
        (sum(part.rows for part in parts),),
    )
