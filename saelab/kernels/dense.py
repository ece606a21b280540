"""Products over kept matches when there are so many that dense tiles are cheaper than rows one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.codes import SparseCodes
from saelab.kernels.product import fast_products

# Shares of kept pairs from which dense products win (measured: docs/performance.md).
VALUES, SUMS = 1 / 8, 1 / 4
TILE_ELEMENTS = 2**24  # 64 MB of fp32


def values_are_cheaper(codes: SparseCodes) -> bool:
    """Whether `value_gradients` should be dense."""
    return codes.nnz > VALUES * codes.rows * codes.d_sae


def sums_are_cheaper(codes: SparseCodes) -> bool:
    """Whether `decode` and `row_gradients` should be dense."""
    return codes.nnz > SUMS * codes.rows * codes.d_sae


def decode(codes: SparseCodes, W_dec: Float[Tensor, "F d"]) -> Float[Tensor, "B d"]:
    """Sum over a row's matches of value · decoder row."""
    with fast_products(W_dec):
        return torch.cat([tile.scatter(codes.values, codes.d_sae) @ W_dec for tile in _tiles(codes)])


def value_gradients(
    grad_x_hat: Float[Tensor, "B d"], codes: SparseCodes, W_dec: Float[Tensor, "F d"]
) -> Float[Tensor, "nnz"]:
    """⟨grad_x_hat[row], W_dec[latent]⟩ of every match."""
    with fast_products(W_dec):
        parts = [(grad_x_hat[tile.rows] @ W_dec.T).view(-1).index_select(0, tile.places) for tile in _tiles(codes)]
    return torch.cat(parts)


def row_gradients(
    codes: SparseCodes, coefficients: Float[Tensor, "nnz"], rows: Float[Tensor, "B d"]
) -> Float[Tensor, "F d"]:
    """Sum over a latent's matches of coefficient · rows[row]."""
    sums = rows.new_zeros(codes.d_sae, rows.shape[1])
    with fast_products(rows):
        for tile in _tiles(codes):
            sums.addmm_(tile.scatter(coefficients, codes.d_sae).T, rows[tile.rows])
    return sums


class _Tile(NamedTuple):
    """Some consecutive rows of codes."""

    rows: slice
    matches: slice
    places: Int[Tensor, "n"]
    """Row within the tile · F + latent."""

    def scatter(self, of_matches: Float[Tensor, "nnz"], d_sae: int) -> Float[Tensor, "rows F"]:
        """A dense tile with a number at every match and 0 elsewhere."""
        tile = of_matches.new_zeros(self.rows.stop - self.rows.start, d_sae)
        tile.view(-1).scatter_(0, self.places, of_matches[self.matches])
        return tile


def _tiles(codes: SparseCodes) -> Iterator[_Tile]:
    height = max(1, TILE_ELEMENTS // max(1, codes.d_sae))
    for start in range(0, max(1, codes.rows), height):
        rows = slice(start, min(start + height, codes.rows))
        whole = rows.stop - rows.start == codes.rows  # then the host need not ask the device where matches lie
        matches = slice(0, codes.nnz) if whole else slice(int(codes.offsets[start]), int(codes.offsets[rows.stop]))
        yield _Tile(rows, matches, (codes.row_ids[matches] - start) * codes.d_sae + codes.latents[matches])
