"""Directions held against every latent's: cosines over a dictionary's rows, read from its file a tile at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from safetensors import SafetensorError, safe_open

from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError

Rows = Literal["W_enc", "W_dec"]
"""Encoder rows (what a latent reads) or decoder rows (what it writes)."""

_TILE_BYTES = 2**21  # of weights in memory at once: few enough to stay in a processor's cache


def cosines(dictionary: Path, vector: Float32[np.ndarray, "d"], rows: Rows = "W_dec") -> Float32[np.ndarray, "F"]:
    """Cosine of `vector` with every row; 0 for a row of zeros. Neither torch nor the whole dictionary is loaded.

    Args:
        dictionary: its directory.

    Raises:
        UserError: the vector has another length than the rows, is zero or not finite, or the file is damaged.
    """
    if not np.isfinite(vector).all() or not vector.any():
        raise UserError("a direction needs finite numbers that are not all 0")
    unit = (vector / np.linalg.norm(vector.astype(np.float64))).astype(np.float32)
    with _Weights(dictionary, rows) as weights:
        if len(vector) != weights.width:
            raise UserError(f"the direction has {len(vector)} numbers; this dictionary's have {weights.width}")
        found = np.zeros(weights.count, np.float32)
        step = max(1, _TILE_BYTES // (4 * weights.width))
        for first in range(0, weights.count, step):
            tile = weights[first : min(first + step, weights.count)]
            length = np.sqrt(np.einsum("nd,nd->n", tile, tile))
            found[first : first + len(tile)] = (tile @ unit) / np.where(length > 0, length, 1)
    return found.clip(-1, 1)


def row(dictionary: Path, latent: int, rows: Rows = "W_dec") -> Float32[np.ndarray, "d"]:
    """One latent's direction.

    Raises:
        UserError: there is no such latent, or the file is damaged.
    """
    with _Weights(dictionary, rows) as weights:
        if not 0 <= latent < weights.count:
            raise UserError(f"latent {latent} is not in this dictionary, which has latents 0 to {weights.count - 1}")
        return weights[latent : latent + 1][0]


class _Weights:
    """One matrix of a dictionary, open for reading by rows."""

    def __init__(self, dictionary: Path, name: str) -> None:
        self._path, self._name = DictionaryPaths(dictionary).weights, name

    def __enter__(self) -> _Weights:
        try:
            self._file: Any = safe_open(self._path, framework="numpy").__enter__()
            self._slice = self._file.get_slice(self._name)
            if self._slice.get_dtype() == "BF16":  # which NumPy does not know
                self._file.__exit__(None, None, None)
                self._file = safe_open(self._path, framework="pt").__enter__()
                self._slice = self._file.get_slice(self._name)
        except FileNotFoundError:
            raise UserError(f"{self._path} does not exist") from None
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self._path} is damaged or not a safetensors file: {error}") from None
        self.count, self.width = self._slice.get_shape()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)

    def __getitem__(self, rows: slice) -> Float32[np.ndarray, "some d"]:
        part = self._slice[rows]
        return part.astype(np.float32) if isinstance(part, np.ndarray) else part.float().numpy()
