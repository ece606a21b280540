"""Cosines of a direction with every row, however the file is read in tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from saelab.disk.layout import DictionaryPaths
from saelab.errors import UserError
from saelab.features import nearest


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    """Three decoder rows in the plane: along x, the diagonal at length 5, and nothing at all."""
    rows = np.array([[1, 0], [5 / 2**0.5, 5 / 2**0.5], [0, 0]], np.float32)
    save_file({"W_dec": rows, "W_enc": -rows}, DictionaryPaths(tmp_path).weights)
    return tmp_path


@pytest.mark.parametrize("tile", [1, 8, 16, 2**25])
def test_cosines_by_hand_whatever_the_tile(dictionary: Path, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_TILE_BYTES", tile)
    up = np.array([0, 3], np.float32)
    assert nearest.cosines(dictionary, up).tolist() == pytest.approx([0, 0.5**0.5, 0])
    assert nearest.cosines(dictionary, up, "W_enc").tolist() == pytest.approx([0, -(0.5**0.5), 0])


def test_a_row_is_its_own_nearest(dictionary: Path) -> None:
    row = nearest.row(dictionary, 1)
    assert row.tolist() == pytest.approx([5 / 2**0.5] * 2)
    assert int(nearest.cosines(dictionary, row).argmax()) == 1


def test_bfloat16_is_read_too(tmp_path: Path) -> None:
    save_torch({"W_dec": torch.eye(3, dtype=torch.bfloat16)}, DictionaryPaths(tmp_path).weights)
    assert nearest.cosines(tmp_path, np.array([0, 2, 0], np.float32)).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("vector", "said"),
    [([1, 2, 3], "has 3 numbers; this dictionary's have 2"), ([0, 0], "not all 0"), ([np.nan, 1], "finite")],
)
def test_what_is_no_direction_is_refused(dictionary: Path, vector: list[float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        nearest.cosines(dictionary, np.array(vector, np.float32))


def test_a_row_or_file_that_is_not_there(dictionary: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="latents 0 to 2"):
        nearest.row(dictionary, 3)
    with pytest.raises(UserError, match="does not exist"):
        nearest.row(tmp_path / "elsewhere", 0)
    DictionaryPaths(dictionary).weights.write_bytes(b"torn")
    with pytest.raises(UserError, match="damaged"):
        nearest.cosines(dictionary, np.ones(2, np.float32))
