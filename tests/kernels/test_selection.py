"""Selection: every backend picks exactly what the reference picks, ties included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saelab.kernels import selection
from saelab.kernels.codes import SparseCodes
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.sparse import SparseBackend

UNTIMED = settings(deadline=None)
REFERENCE, SPARSE = ReferenceBackend(), SparseBackend()


@st.composite
def score_matrices(draw: st.DrawFn) -> Tensor:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    # Few distinct values, so that most batches are full of ties.
    levels = draw(st.sampled_from([1, 2, 3, 1000]))
    cells = draw(st.lists(st.integers(0, levels - 1), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(cells, dtype=torch.float32).view(rows, columns) - levels / 2


@st.composite
def wide_tables(draw: st.DrawFn) -> Tensor:
    """Wide enough for groups of every size and several tiles, full of ties, zeros of both signs and infinities."""
    rows, columns = draw(st.integers(1, 40)), draw(st.sampled_from([1, 31, 32, 40, 64, 96, 100, 256]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    table = torch.randn(rows, columns, generator=generator)
    coarseness = draw(st.sampled_from([0, 1, 4]))
    if coarseness:
        table = (table * coarseness).round() / coarseness  # rounding keeps the sign of zero
    for value in draw(st.sets(st.sampled_from([-torch.inf, torch.inf, 0.0, -0.0]))):
        table[torch.rand(rows, columns, generator=generator) < 0.1] = value
    return table.to(draw(st.sampled_from([torch.float32, torch.float64])))


def same(one: SparseCodes, other: SparseCodes) -> None:
    assert one.latents.tolist() == other.latents.tolist()
    assert one.offsets.tolist() == other.offsets.tolist()
    assert one.values.tolist() == other.values.tolist()


@UNTIMED
@given(score_matrices(), st.integers(1, 9))
def test_token_choice(scores: Tensor, k: int) -> None:
    same(SPARSE.select_token(scores, k), REFERENCE.select_token(scores, k))


@UNTIMED
@given(score_matrices(), st.integers(0, 90))
def test_mutual_choice(scores: Tensor, budget: int) -> None:
    same(SPARSE.select_mutual(scores, budget), REFERENCE.select_mutual(scores, budget))


@UNTIMED
@given(score_matrices(), st.data())
def test_feature_choice(scores: Tensor, data: st.DataObject) -> None:
    B, F = scores.shape
    budgets = torch.tensor(data.draw(st.lists(st.integers(0, B), min_size=F, max_size=F)))
    same(SPARSE.select_feature(scores, budgets), REFERENCE.select_feature(scores, budgets))


@UNTIMED
@given(wide_tables(), st.floats(0, 1))
def test_token_choice_of_wide_tables(scores: Tensor, share: float) -> None:
    k = max(1, int(share * scores.shape[1]))
    same(SPARSE.select_token(scores, k), REFERENCE.select_token(scores, k))


@UNTIMED
@given(wide_tables(), st.floats(0, 1))
def test_mutual_choice_of_wide_tables(scores: Tensor, share: float) -> None:
    budget = int(share**2 * scores.numel())
    same(SPARSE.select_mutual(scores, budget), REFERENCE.select_mutual(scores, budget))


@UNTIMED
@given(wide_tables(), st.integers(0, 2**32), st.sampled_from([1, 2, 6]), st.booleans())
def test_feature_choice_of_wide_tables(table: Tensor, seed: int, skew: int, by_latent: bool) -> None:
    scores = table.T if by_latent else table  # the layout that `pre_activations` gives it, and the other one
    B, F = scores.shape
    budgets = (torch.rand(F, generator=torch.Generator().manual_seed(seed)) ** skew * (B + 1)).long()
    same(SPARSE.select_feature(scores, budgets), REFERENCE.select_feature(scores, budgets))


def test_tiles_and_guessed_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles and a sample too small to be right, so that every branch of a large problem runs on a small one."""
    monkeypatch.setattr(selection, "TILE_ELEMENTS", 128)
    monkeypatch.setattr(selection, "SAMPLE", 16)
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        scores = torch.randn(24, 64, generator=generator).mul_(4).round_() * (torch.arange(64) % 7 == number % 7)
        for budget in (1, 17, 250, 1500):
            same(SPARSE.select_mutual(scores, budget), REFERENCE.select_mutual(scores, budget))
        same(SPARSE.select_token(scores, 1 + number), REFERENCE.select_token(scores, 1 + number))


def test_no_rows_at_all() -> None:
    for columns in (1, 64):
        scores = torch.empty(0, columns)
        same(SPARSE.select_token(scores, 1), REFERENCE.select_token(scores, 1))
        same(SPARSE.select_mutual(scores, 3), REFERENCE.select_mutual(scores, 3))
        none = torch.zeros(columns, dtype=torch.int64)
        same(SPARSE.select_feature(scores, none), REFERENCE.select_feature(scores, none))


@pytest.mark.parametrize("sign", [1, -1])
def test_not_a_number_is_never_passed_over(sign: int) -> None:
    """A step must see that its numbers broke: NaN of either sign is selected as if it were the largest."""
    scores = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    scores[3, 5] = torch.tensor(torch.nan).copysign(torch.tensor(float(sign)))
    assert SPARSE.select_token(scores, 2).values.isnan().sum() == 1
    assert SPARSE.select_mutual(scores, 16).values.isnan().sum() == 1
    assert SPARSE.select_feature(scores, torch.full((64,), 2)).values.isnan().sum() == 1


def test_many_that_are_not_a_number_keep_the_tie_rule() -> None:
    """More of them than the budget has places for."""
    scores = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    scores[2:6, 3:50] = torch.nan
    scores[0, 0] = torch.inf
    for ours, theirs in (
        (SPARSE.select_token(scores, 5), REFERENCE.select_token(scores, 5)),
        (SPARSE.select_mutual(scores, 20), REFERENCE.select_mutual(scores, 20)),
        (SPARSE.select_feature(scores, torch.full((64,), 2)), REFERENCE.select_feature(scores, torch.full((64,), 2))),
    ):
        assert ours.latents.tolist() == theirs.latents.tolist()
        assert ours.offsets.tolist() == theirs.offsets.tolist()


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


@UNTIMED
@given(score_matrices(), st.integers(0, 90))
def test_mutual_choice_spends_its_budget_to_the_last_match(scores: Tensor, budget: int) -> None:
    assert SPARSE.select_mutual(scores, budget).nnz == min(budget, scores.numel())
