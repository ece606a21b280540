"""Feature choice: budgets that are not whole, carried from batch to batch."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saelab.dictionaries.allocation import FeatureAllocation, MutualAllocation, capped, uniform_shares, zipf_shares
from saelab.kernels.codes import SparseCodes
from saelab.kernels.reference import ReferenceBackend
from saelab.ranks.axis import Axis


class Asked(ReferenceBackend):
    """Remembers what it was asked for."""

    def __init__(self) -> None:
        self.budgets: list[int | list[int]] = []

    def select_mutual(self, scores: Tensor, budget: int) -> SparseCodes:
        self.budgets.append(budget)
        return super().select_mutual(scores, budget)

    def select_feature(self, scores: Tensor, budgets: Tensor) -> SparseCodes:
        self.budgets.append(budgets.tolist())
        return super().select_feature(scores, budgets.clamp(max=len(scores)))


def test_error_diffusion_by_hand() -> None:
    # Three latents share 2 matches a batch: 2/3 each. Largest remainder first, ties to the lower latent:
    # batch 1 [1 1 0], owed [-1/3 -1/3 2/3]; batch 2 wants [1/3 1/3 4/3] → [1 0 1]; batch 3 wants [0 1 1] → [0 1 1].
    allocation = FeatureAllocation(uniform_shares(3))
    assert [allocation.budgets(2, 10).tolist() for _ in range(3)] == [[1, 1, 0], [1, 0, 1], [0, 1, 1]]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=12), st.integers(1, 30), st.integers(1, 8))
def test_budgets_spend_everything_and_are_fair_in_the_long_run(weights: list[float], k: int, B: int) -> None:
    shares = torch.tensor(weights, dtype=torch.float64)
    k = min(k, len(weights))
    allocation = FeatureAllocation(shares)
    spent = torch.stack([allocation.budgets(k * B, B) for _ in range(50)])
    assert (spent.sum(1) == k * B).all()
    assert spent.min() >= 0
    assert spent.max() <= B
    wanted = capped(allocation.shares * k * B, B)
    assert (spent.sum(0) - 50 * wanted).abs().max() < 2


def test_cap_hands_the_surplus_on_in_proportion() -> None:
    # 10 matches wanted as 8, 1, 1 but a batch of 4 tokens: 4 to the first, the other 6 split evenly.
    assert capped(torch.tensor([8.0, 1.0, 1.0]), 4).tolist() == [4.0, 3.0, 3.0]


def test_zipf_shares_follow_rank_not_index() -> None:
    # Densities rank the latents 2, 0, 1; weights 1, 1/2, 1/3 sum to 11/6.
    shares = zipf_shares(torch.tensor([0.2, 0.1, 0.9]), exponent=1.0, shift=0.0)
    expected = torch.tensor([3 / 11, 2 / 11, 6 / 11], dtype=torch.float64)
    torch.testing.assert_close(shares, expected)


def test_a_rank_spends_the_budget_of_the_whole_batch() -> None:
    """By hand: 2 of 6 tokens here, and latents 2 and 3 of 4. k = 2 makes 12 matches, by shares 3, 3, 1 and 5."""
    scores, latent, backend = torch.zeros(2, 2), Axis(1, 2), Asked()
    MutualAllocation().select(scores, 2.0, backend, 6, latent)
    FeatureAllocation(torch.tensor([3.0, 3.0, 1.0, 5.0])).select(scores, 2.0, backend, 6, latent)
    assert backend.budgets == [12, [1, 5]]
