"""Decoder directions on a plane."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from saelab.errors import UserError
from saelab.features import direction_map as module
from saelab.features.direction_map import direction_map, methods, principal_plane, sample


def test_the_plane_is_that_of_the_two_largest_variances() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((400, 30)) * np.r_[9, 5, np.ones(28)] + 3
    places, explained = principal_plane(x)
    left, sizes, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(places), np.abs(left * sizes)[:, :2], atol=1e-9)
    np.testing.assert_allclose(explained, (sizes**2 / (sizes**2).sum())[:2])
    assert (places[np.abs(places).argmax(0), [0, 1]] > 0).all()  # one picture, not a mirrored one


def test_flat_directions_and_one_dimension() -> None:
    places, explained = principal_plane(np.ones((5, 3)))
    assert not places.any()
    assert explained == (0.0, 0.0)
    places, explained = principal_plane(np.array([[0.0], [1.0], [2.0]]))
    assert explained == pytest.approx((1.0, 0.0))
    assert not places[:, 1].any()


def dictionary(folder: Path, rows: np.ndarray) -> Path:
    save_file({"W_dec": rows.astype(np.float32)}, folder / "dictionary.safetensors")
    return folder


def test_lengths_do_not_count_and_rows_are_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", 12)  # three rows at a time
    rows = np.random.default_rng(1).standard_normal((20, 4))
    latents = np.array([0, 2, 3, 8, 9, 19])
    found = direction_map(dictionary(tmp_path, rows * np.arange(1, 21)[:, None]), latents)
    unit = rows[latents] / np.linalg.norm(rows[latents], axis=1, keepdims=True)
    np.testing.assert_allclose(found.places, principal_plane(unit)[0], atol=1e-5)
    assert found.explained is not None


def test_large_dictionaries_are_sampled() -> None:
    live = np.arange(0, 131_072, 2)
    drawn = sample(live, most=1000)
    assert len(set(drawn.tolist())) == 1000
    assert (np.diff(drawn) > 0).all()
    assert not (drawn % 2).any()
    assert drawn.tolist() == sample(live, most=1000).tolist()
    assert abs(drawn.mean() - live.mean()) < 5000  # from everywhere
    assert sample(np.array([3, 1]), most=5).tolist() == [1, 3]


def test_too_few_or_unreadable_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least three latents"):
        direction_map(dictionary(tmp_path, np.ones((4, 2))), np.array([0, 1]))
    (tmp_path / "dictionary.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="can't be read"):
        direction_map(tmp_path, np.arange(4))
    with pytest.raises(UserError, match="does not exist"):
        direction_map(tmp_path / "nowhere", np.arange(4))


def test_umap_is_offered_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert methods() == ["pca"]
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    assert methods() == ["pca", "umap"]

    class Umap:
        def __init__(self, **settings: object) -> None:
            assert settings["metric"] == "cosine"
            assert settings["n_neighbors"] == 3  # no more than there are others

        def fit_transform(self, unit: np.ndarray) -> np.ndarray:
            return unit[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    found = direction_map(dictionary(tmp_path, np.eye(4) * 7), np.arange(4), "umap")
    assert found.explained is None
    np.testing.assert_allclose(found.places, np.eye(4)[:, :2])
