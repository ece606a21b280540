"""Edit paths: by hand, and against the plainest greedy loop there is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saelab.evaluation.ioi import edits
from saelab.evaluation.ioi.baselines import pca
from saelab.evaluation.ioi.edits import Candidates, greedy_path, guided_path
from saelab.evaluation.ioi.features import Features
from saelab.evaluation.ioi.toys import unwritten_prompts
from saelab.kernels.codes import SparseCodes


def sparse(dense: list[list[float]] | Tensor) -> SparseCodes:
    values = torch.as_tensor(dense, dtype=torch.float64)
    return SparseCodes.from_mask(values, values != 0)


def features_of(vectors: Tensor) -> Features:
    def no_encoder(x: Tensor, prompts: object) -> SparseCodes:
        raise AssertionError("codes are given")

    return Features("given", vectors, torch.zeros(vectors.shape[1], dtype=vectors.dtype), no_encoder)


EYE = features_of(torch.eye(4, dtype=torch.float64))


def test_greedy_by_hand() -> None:
    # Latent 0 goes (gain 9), latent 3 comes (gain 4), latent 1 falls from 2 to 1 (gain 1), latent 2 stays.
    source, target = sparse([[3, 2, 1, 0]]), sparse([[0, 1, 1, 2]])
    x = source.to_dense() + torch.tensor([[0.0, 0.0, 0.5, 0.0]])  # what the codes leave out is not edited
    path = greedy_path(EYE, x, target.to_dense(), source, target, most=8)
    assert path.latents.tolist() == [[0, 3, 1, -1]]
    assert path.change.tolist() == [[-3, 2, -1, 0]]
    assert path.longest == 3
    edited = path.edited([0, 1, 2, 3, 8])
    assert {k: x[0].tolist() for k, x in edited.items()} == {
        0: [3, 2, 1.5, 0], 1: [0, 2, 1.5, 0], 2: [0, 2, 1.5, 2], 3: [0, 1, 1.5, 2], 8: [0, 1, 1.5, 2],
    }  # fmt: skip
    # |a_hat|² = 14: latent 0 is 9 of it, latent 1 is 4 (all of it is removed, then another amount put in).
    assert [float(path.magnitude(k)) for k in (0, 1, 2, 3, 8)] == pytest.approx([0, 9 / 14, 9 / 14, 13 / 14, 13 / 14])


def test_prompts_have_paths_of_their_own_lengths() -> None:
    source, target = sparse([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]]), sparse([[1, 0, 0, 0], [0, 0, 0, 1], [0] * 4])
    path = greedy_path(EYE, source.to_dense(), target.to_dense(), source, target, most=2)
    assert (path.latents >= 0).sum(1).tolist() == [0, 2, 0]
    torch.testing.assert_close(path.edited([2])[2][0], source.to_dense()[0])


def test_guided_by_hand() -> None:
    # Two values. Latents 0 and 1 tell of value 0, latents 2 and 3 of value 1; latent 3 tells it best of all.
    f1 = torch.tensor([[0.6, 0.4, 0.0, 0.1], [0.1, 0.0, 0.5, 0.9]])
    source, target = sparse([[3, 2, 0, 0]]), sparse([[0, 0, 1, 1]])
    values = (torch.tensor([0]), torch.tensor([1]))
    path = guided_path(EYE, source.to_dense(), source, target, f1, values, most=8)
    assert path.latents.tolist() == [[3, 0, 2, 1]]  # the best for either value, then the second best for either
    assert path.change.tolist() == [[1, -3, 1, -2]]
    torch.testing.assert_close(path.edited([4])[4], target.to_dense())
    assert path.magnitude(4).tolist() == [1.0]
    assert guided_path(EYE, source.to_dense(), source, target, f1, values, most=1).latents.tolist() == [[3]]


@given(st.data())
def test_greedy_is_what_trying_every_latent_finds(data: st.DataObject) -> None:
    n, F, d, most = (data.draw(st.integers(1, high)) for high in (4, 6, 5, 7))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**20)))
    vectors = torch.randn(F, d, dtype=torch.float64, generator=generator)
    dense = [torch.rand(n, F, dtype=torch.float64, generator=generator) for _ in range(2)]
    kept = [part * (torch.rand(n, F, generator=generator) < 0.6) for part in dense]
    x, goal = (torch.randn(n, d, dtype=torch.float64, generator=generator) for _ in range(2))
    together = data.draw(st.booleans())
    path = greedy_path(features_of(vectors), x, goal, *(sparse(part) for part in kept), most=most, together=together)
    for row in range(n):
        alpha, beta = kept[0][row], kept[1][row]
        nothing = torch.zeros_like(alpha)
        moves = [(alpha, beta)] if together else [(alpha, nothing), (nothing, beta)]
        chosen, edited = tried(vectors, x[row], goal[row], moves, most)
        assert [latent for latent in path.latents[row].tolist() if latent >= 0] == chosen
        torch.testing.assert_close(path.edited([most])[most][row], edited)


def tried(
    vectors: Tensor, x: Tensor, goal: Tensor, moves: list[tuple[Tensor, Tensor]], most: int
) -> tuple[list[int], Tensor]:
    left = [
        (latent, (beta[latent] - alpha[latent]) * vectors[latent])
        for alpha, beta in moves
        for latent in range(len(vectors))
        if alpha[latent] != 0 or beta[latent] != 0
    ]
    chosen: list[int] = []
    while left and len(chosen) < most:
        best = min(range(len(left)), key=lambda i: float((x + left[i][1] - goal).norm()))
        latent, change = left.pop(best)
        if float((x + change - goal).norm()) >= float((x - goal).norm()):
            break
        chosen.append(latent)
        x = x + change
    return chosen, x


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(12, 5, dtype=torch.float64, generator=generator)
    source, target = (sparse(torch.randn(9, 12, dtype=torch.float64, generator=generator).relu()) for _ in range(2))
    x, goal = source.to_dense() @ vectors, target.to_dense() @ vectors
    whole = greedy_path(features_of(vectors), x, goal, source, target, most=6)
    monkeypatch.setattr(edits, "_TILE_ELEMENTS", 1)
    tiled = greedy_path(features_of(vectors), x, goal, source, target, most=6)
    assert torch.equal(whole.latents, tiled.latents)
    torch.testing.assert_close(whole.change, tiled.change)


def test_all_latents_carry_a_reconstruction_over() -> None:
    # Swapping every coordinate for the target's turns the source's reconstruction into the target's.
    x = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features, prompts = pca(x, 3), unwritten_prompts(25, 4, torch.Generator())
    codes = [features.encode(part, prompts) for part in x.split(25)]
    hats = [features.reconstruct(part) for part in codes]
    path = greedy_path(features, hats[0], hats[1], *codes, most=6)
    assert path.longest == 3  # a coordinate that is in both counts once
    torch.testing.assert_close(path.edited([3])[3], hats[1])
    torch.testing.assert_close(path.magnitude(3), torch.ones(25, dtype=torch.float64))


def test_candidates_are_padded() -> None:
    found = Candidates.of(sparse([[0, 5, 0], [1, 0, 2]]), sparse([[0, 6, 0], [0, 3, 2]]))
    assert found.latents.tolist() == [[1, -1, -1], [0, 1, 2]]
    assert found.removed.tolist() == [[5, 0, 0], [1, 0, 2]]
    assert found.added.tolist() == [[6, 0, 0], [0, 3, 2]]


def test_removing_and_adding_as_two_edits() -> None:
    found = Candidates.of(sparse([[0, 5, 0], [1, 0, 2]]), sparse([[0, 6, 0], [0, 3, 2]]), together=False)
    assert found.latents.tolist() == [[1, 1, -1, -1], [0, 2, 1, 2]]
    assert found.removed.tolist() == [[5, 0, 0, 0], [1, 2, 0, 0]]
    assert found.added.tolist() == [[0, 6, 0, 0], [0, 0, 3, 2]]


def test_no_codes_no_edits() -> None:
    nothing = sparse([[0, 0, 0, 0]])
    path = greedy_path(EYE, torch.ones(1, 4).double(), torch.zeros(1, 4).double(), nothing, nothing, most=4)
    assert path.longest == 0
    assert path.edited([4])[4].tolist() == [[1, 1, 1, 1]]
    assert path.magnitude(4).tolist() == [0]
