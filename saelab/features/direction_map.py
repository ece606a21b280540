"""Decoder directions on a plane: which latents write alike. Needs neither torch nor the whole dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError

Method = Literal["pca", "umap"]

MOST: Final = 3000  # directions on one map: more can't be told apart, and a browser draws them slowly
_BLOCK_NUMBERS: Final = 2**22  # of W_dec in memory at a time: 16 MB
_ITERATIONS: Final = 30
_EXTRA: Final = 14  # directions beyond the two wanted, which make the iteration converge quickly


@dataclass(frozen=True)
class DirectionMap:
    """Places of some latents' decoder directions.

    Attributes:
        latents: [n], ascending.
        places: [n, 2].
        explained: share of the directions' variance along each axis; None for UMAP, whose axes mean nothing.
    """

    latents: Int[np.ndarray, "n"]
    places: Float[np.ndarray, "n 2"]
    explained: tuple[float, float] | None


def methods() -> list[Method]:
    """PCA always, UMAP where the package umap-learn is installed."""
    return ["pca", "umap"] if find_spec("umap") else ["pca"]


def sample(latents: Int[np.ndarray, "n"], most: int = MOST, seed: int = 0) -> Int[np.ndarray, "m"]:
    """At most `most` of `latents`, drawn without looking at them, ascending."""
    if len(latents) <= most:
        return np.sort(latents)
    return np.sort(np.random.default_rng(seed).choice(latents, most, replace=False))


def direction_map(
    dictionary: Path, latents: Int[np.ndarray, "n"], method: Method = "pca", seed: int = 0
) -> DirectionMap:
    """Lay out the decoder directions (rows of W_dec scaled to length 1) of some latents.

    Args:
        dictionary: directory of a finished dictionary.
        latents: their numbers, ascending; see `sample`.

    Raises:
        UserError: fewer than three latents, or weights that are missing, damaged, or in a format numpy can't read.
    """
    if len(latents) < 3:
        raise UserError(f"a map needs at least three latents, and there are {len(latents)}")
    rows = _rows(DictionaryPaths(dictionary).weights, latents)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    if method == "umap":
        return DirectionMap(latents, _umap(unit, seed), None)
    places, explained = principal_plane(unit, seed)
    return DirectionMap(latents, places, explained)


def principal_plane(x: Float[np.ndarray, "n d"], seed: int = 0) -> tuple[Float[np.ndarray, "n 2"], tuple[float, float]]:
    """Coordinates along the two directions of largest variance, and the shares of the variance that they explain.

    By subspace iteration on the centred rows, which never forms a [d, d] matrix. Signs are fixed by the largest
    coordinate being positive, so that the same directions give the same picture.
    """
    centred = (x - x.mean(0)).astype(np.float64)
    wanted = min(2 + _EXTRA, *x.shape)
    basis = np.random.default_rng(seed).standard_normal((x.shape[1], wanted))
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    left, sizes, _ = np.linalg.svd(centred @ basis, full_matrices=False)
    places = np.zeros((len(x), 2))
    places[:, : min(2, wanted)] = (left * sizes)[:, :2]
    places *= np.where(places[np.abs(places).argmax(0), [0, 1]] < 0, -1, 1)
    total = float(np.square(centred).sum()) or 1.0
    first, second = np.square(places).sum(0) / total
    return places, (float(first), float(second))


def _umap(unit: Float[np.ndarray, "n d"], seed: int) -> Float[np.ndarray, "n 2"]:
    import umap  # pyright: ignore[reportMissingImports]  # an extra

    neighbours = min(15, len(unit) - 1)
    return umap.UMAP(metric="cosine", n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(unit)


def _rows(weights: Path, latents: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n d"]:
    """Those rows of W_dec, read block by block."""
    try:
        return np.concatenate(list(_blocks(weights, latents)))
    except FileNotFoundError:
        raise UserError(f"{weights} does not exist") from None
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{weights} can't be read: {error}") from None


def _blocks(weights: Path, latents: Int[np.ndarray, "n"]) -> Iterator[NDArray[np.float32]]:
    with safe_open(weights, framework="numpy") as file:
        decoder = file.get_slice("W_dec")
        n_rows, width = decoder.get_shape()
        step = max(1, _BLOCK_NUMBERS // width)
        for first in range(0, n_rows, step):
            begin, end = np.searchsorted(latents, [first, first + step])
            if end > begin:
                yield decoder[first : min(first + step, n_rows)][latents[begin:end] - first].astype(np.float32)
