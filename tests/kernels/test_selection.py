"""Selection: every backend picks exactly what the reference picks, ties included."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saelab.kernels.codes import SparseCodes
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.sparse import SparseBackend

REFERENCE, SPARSE = ReferenceBackend(), SparseBackend()


@st.composite
def score_matrices(draw: st.DrawFn) -> Tensor:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    # Few distinct values, so that most batches are full of ties.
    levels = draw(st.sampled_from([1, 2, 3, 1000]))
    cells = draw(st.lists(st.integers(0, levels - 1), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(cells, dtype=torch.float32).view(rows, columns) - levels / 2


def same(one: SparseCodes, other: SparseCodes) -> None:
    assert one.latents.tolist() == other.latents.tolist()
    assert one.offsets.tolist() == other.offsets.tolist()
    assert one.values.tolist() == other.values.tolist()


@given(score_matrices(), st.integers(1, 9))
def test_token_choice(scores: Tensor, k: int) -> None:
    same(SPARSE.select_token(scores, k), REFERENCE.select_token(scores, k))


@given(score_matrices(), st.integers(0, 90))
def test_mutual_choice(scores: Tensor, budget: int) -> None:
    same(SPARSE.select_mutual(scores, budget), REFERENCE.select_mutual(scores, budget))


@given(score_matrices(), st.data())
def test_feature_choice(scores: Tensor, data: st.DataObject) -> None:
    B, F = scores.shape
    budgets = torch.tensor(data.draw(st.lists(st.integers(0, B), min_size=F, max_size=F)))
    same(SPARSE.select_feature(scores, budgets), REFERENCE.select_feature(scores, budgets))


@pytest.mark.parametrize("backend", [REFERENCE, SPARSE], ids=lambda b: b.name)
class TestTieRule:
    """Worked out by hand on one matrix of ties:  token 0: [1 1 1], token 1: [0 1 0]."""

    scores = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])

    def test_token_choice_prefers_the_lower_latent(self, backend: ReferenceBackend) -> None:
        # Token 0 has three equals: latents 0 and 1 win. Token 1: latent 1, then the lower of the two zeros.
        assert backend.select_token(self.scores, 2).latents.tolist() == [0, 1, 0, 1]

    def test_mutual_choice_prefers_the_lower_token_then_latent(self, backend: ReferenceBackend) -> None:
        # Four ones for three places: token 0 takes all three.
        codes = backend.select_mutual(self.scores, 3)
        assert codes.offsets.tolist() == [0, 3, 3]

    def test_feature_choice_prefers_the_lower_token(self, backend: ReferenceBackend) -> None:
        codes = backend.select_feature(self.scores, torch.tensor([0, 1, 2]))
        # Latent 1 is tied between both tokens: token 0 wins. Latent 2 takes both tokens.
        assert (codes.latents.tolist(), codes.offsets.tolist()) == ([1, 2, 2], [0, 2, 3])


@given(score_matrices(), st.integers(0, 90))
def test_mutual_choice_spends_its_budget_to_the_last_match(scores: Tensor, budget: int) -> None:
    assert SPARSE.select_mutual(scores, budget).nnz == min(budget, scores.numel())
