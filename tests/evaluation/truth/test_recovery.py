"""Recovery, worked out by hand on dictionaries that are known to be right, or wrong in a known way."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, MutualChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.evaluation.truth.config import TruthConfig
from saelab.evaluation.truth.recovery import Firing, recovery
from saelab.evaluation.truth.synthetic import Drawn, Truth
from saelab.kernels.codes import SparseCodes


@pytest.fixture(scope="module")
def truth() -> Truth:
    """Twelve orthogonal features without noise."""
    made = Truth.make(
        TruthConfig(
            d_in=16,
            n_features=12,
            active=2,
            shift=6,
            families=2,
            children=1,
            noise=0,
            firing_spread=0,
            feature_spread=0,
        )
    )
    return replace(made, directions=torch.eye(12, 16))


def dictionary(truth: Truth, rows: Tensor, threshold: float = 0.5) -> Dictionary:
    """Decodes with `rows` and encodes with the same: the features themselves where they are orthogonal."""
    config = DictionaryConfig(
        architecture="mutual-choice", d_in=16, d_sae=len(rows), k=2, affinity=ActivationAffinity(),
        allocation=MutualChoice(), rule="threshold", scale=1.0, site="blocks.0.resid_post", model="synthetic",
        model_fingerprint="", tokenizer_fingerprint="", policy={}, tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    return Dictionary(rows, rows, torch.zeros(len(rows)), truth.offset, torch.full((len(rows),), threshold), config)


def test_the_truth_recovers_itself(truth: Truth) -> None:
    shuffled = torch.cat([truth.directions, torch.eye(16)[12:14]])[torch.randperm(14)]
    found = recovery(dictionary(truth, shuffled), truth, tokens=8192)
    assert (found.max_cosine, found.recovered, found.matched_cosine) == (1.0, 1.0, 1.0)
    assert found.f1 == 1.0
    assert (found.absorbed, found.missed_alone) == (0.0, 0.0)
    assert found.fvu == pytest.approx(0, abs=1e-9)
    assert found.l0 == pytest.approx(2, rel=0.05)
    assert (found.dead, found.tokens) == (2, 8192)
    assert found.f1_by_frequency == [1.0] * 10


def test_half_of_the_features(truth: Truth) -> None:
    # Features 6 to 11 have no latent: cosine 0 with all rows, F1 of whatever happens to fire beside them.
    found = recovery(dictionary(truth, torch.eye(16)[:6]), truth, tokens=8192)
    assert (found.max_cosine, found.recovered) == (0.5, 0.5)
    assert found.matched_cosine is None  # six rows can't be shared out among twelve features
    # Tenths of twelve features: two groups of two, then eight of one.
    assert found.recovered_by_frequency == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert found.max_cosine_by_frequency == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_one_latent_for_two_features_is_nearest_to_both_but_matched_to_one(truth: Truth) -> None:
    rows = torch.eye(16)[:12].clone()
    rows[1] = rows[0] = (rows[0] + rows[1]) / 2**0.5
    rows[1] = torch.eye(16)[14]
    found = recovery(dictionary(truth, rows), truth, tokens=2048)
    assert found.max_cosine == pytest.approx((10 + 2 * 0.5**0.5) / 12)
    assert found.recovered == pytest.approx(10 / 12)
    assert found.matched_cosine == pytest.approx((10 + 0.5**0.5) / 12)


def family() -> Truth:
    """Feature 0 is the parent of feature 1; feature 2 stands alone."""
    made = Truth.make(TruthConfig(d_in=2, n_features=3, active=1, shift=2, families=1, children=1))
    return replace(made, parent=torch.tensor([0, 0, 2]))


def see(firing: Firing, truly: list[list[int]], latents: list[list[int]]) -> None:
    """Show the same rows to both halves."""
    rows = torch.tensor(truly).repeat_interleave(2, 0).float()
    codes = SparseCodes.from_mask(rows, rows > 0)
    firing.see(Drawn(torch.zeros(len(rows), 2), codes), torch.tensor(latents).repeat_interleave(2, 0) > 0)


def test_f1_and_absorption_by_hand() -> None:
    firing = Firing(family(), d_sae=3)
    #             parent child alone        latent 0 is the parent's but silent beside the child, latent 1 the child's
    see(firing, [[1, 0, 0], [1, 0, 0]], [[1, 0, 0], [1, 0, 0]])
    see(firing, [[1, 1, 0], [1, 1, 0], [1, 1, 0]], [[0, 1, 0], [0, 1, 0], [1, 1, 0]])
    see(firing, [[1, 0, 1], [0, 0, 1], [0, 0, 0]], [[0, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert firing.best().tolist() == [0, 1, 2]
    # Parent: fires 6 times, its latent 3 times, all of them rightly: 2·3 / 9. Child: 3 of 3. Loner: 2·2 / (2 + 3).
    assert firing.f1().tolist() == pytest.approx([6 / 9, 1.0, 4 / 5])
    absorbed, alone = firing.missed()
    assert absorbed.tolist() == pytest.approx([2 / 3])  # beside the child: 3 firings, 1 caught
    assert alone.tolist() == pytest.approx([1 / 3])  # by itself: 3 firings, 2 caught


def test_latents_are_chosen_on_one_half_and_scored_on_the_other() -> None:
    firing = Firing(family(), d_sae=2)
    rows = torch.tensor([[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]]).float()
    codes = SparseCodes.from_mask(rows, rows > 0)
    # Even tokens (0 and 2): latent 1 fires; odd ones: latent 0.
    latents = torch.tensor([[False, True], [True, False], [False, True], [True, False]])
    firing.see(Drawn(torch.zeros(4, 2), codes), latents)
    assert firing.best()[2] == 1
    assert firing.f1()[2] == 0
    assert firing.f1()[:2].isnan().all()  # they never fired: nothing is known
    assert all(part.isnan().all() for part in firing.missed())


def test_another_width_is_refused(truth: Truth) -> None:
    with pytest.raises(UserError, match="reads 16 numbers, but the truth makes 2"):
        recovery(dictionary(truth, torch.eye(16)), family())
