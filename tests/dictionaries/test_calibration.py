"""Thresholds that keep the budget."""

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from saelab.dictionaries.calibration import active_per_token, calibrated, calibrated_per_latent
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, FeatureChoice, MutualChoice
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError


def identity(k: int, threshold: list[float], scale: float = 1.0) -> Dictionary:
    """z = scale · x: one latent per coordinate."""
    d = len(threshold)
    config = DictionaryConfig(
        architecture="mutual-choice", d_in=d, d_sae=d, k=k, affinity=ActivationAffinity(), allocation=MutualChoice(),
        rule="threshold", scale=scale, site="blocks.0.resid_post", model="test", model_fingerprint="",
        tokenizer_fingerprint="", policy={}, tokens_trained=0, saelab_version="0",
    )  # fmt: skip
    return Dictionary(torch.eye(d), torch.eye(d), torch.zeros(d), torch.zeros(d), torch.tensor(threshold), config)


def test_by_hand() -> None:
    # Ratios z/θ of two tokens: [4, 1, 3] and [2, 0.5, 1]. k = 2 wants 4 of them: 4, 3, 2, 1 | 1 would tie, so use
    # k = 1: the two largest are 4 and 3, the next is 2, hence the factor 2.5.
    dictionary = identity(1, [1.0, 2.0, 1.0])
    x = torch.tensor([[4.0, 2.0, 3.0], [2.0, 1.0, 1.0]])
    assert calibrated(dictionary, [x]).threshold.tolist() == [2.5, 5.0, 2.5]
    assert active_per_token(calibrated(dictionary, [x]), [x]) == 1.0


@given(st.integers(1, 4), st.integers(0, 1000), st.floats(0.1, 10))
@example(1, 669, 1.0)  # the batch of seven holds more than twice its share of the largest ratios
def test_the_budget_is_met_exactly_where_it_was_calibrated(k: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(n, 12, generator=generator) for n in (40, 7, 25)]
    dictionary = identity(k, (torch.rand(12, generator=generator) + 0.1).tolist(), scale)
    assert active_per_token(calibrated(dictionary, batches), batches) == pytest.approx(k)


def test_latents_that_never_fired_stay_silent() -> None:
    never = torch.finfo(torch.float32).max
    dictionary = identity(1, [1.0, never, 1.0])
    assert calibrated(dictionary, [torch.rand(20, 3) + 0.5]).threshold[1] == never


def test_what_has_no_thresholds_says_so() -> None:
    dictionary = identity(1, [1.0, 1.0])
    topk = replace(dictionary, config=dictionary.config.model_copy(update={"rule": "topk"}))
    with pytest.raises(UserError, match="has no thresholds"):
        calibrated(topk, [torch.rand(3, 2)])
    with pytest.raises(UserError, match="no threshold can keep the budget"):
        calibrated(dictionary, [-torch.rand(3, 2)])


def by_latent(k: int, threshold: list[float], choice: FeatureChoice, scale: float = 1.0) -> Dictionary:
    dictionary = identity(k, threshold, scale)
    return replace(dictionary, config=dictionary.config.model_copy(update={"allocation": choice}))


UNIFORM = FeatureChoice(budgets="uniform")


def test_each_latent_gets_its_budget_by_hand() -> None:
    # Four tokens, two latents, k = 1: uniform budgets are two tokens each. Between the second and the third largest lie
    # (3 + 2) / 2 = 2.5 for latent 0 and (7 + 1) / 2 = 4 for latent 1.
    x = torch.tensor([[4.0, 9.0], [3.0, 7.0], [2.0, 1.0], [1.0, 0.5]])
    new = calibrated_per_latent(by_latent(1, [0.1, 100.0], UNIFORM), x)
    assert new.threshold.tolist() == [2.5, 4.0]
    assert active_per_token(new, [x]) == 1.0


def test_zipf_budgets_follow_the_ranks_by_density() -> None:
    # Weights 1/rank: of 12 matches 8 and 4. Under the old thresholds latent 1 fires more often, so that it ranks first.
    x = torch.arange(12.0)[:, None].repeat(1, 2) + 0.5
    choice = FeatureChoice(budgets="zipf", exponent=1.0)
    new = calibrated_per_latent(by_latent(1, [10.0, 2.0], choice), x)
    assert new.encode(x).fired().tolist() == [4, 8]


@given(st.integers(1, 4), st.integers(0, 1000), st.floats(0.1, 10))
def test_budgets_are_met_where_latents_have_positive_matches(k: int, seed: int, scale: float) -> None:
    x = torch.rand(60, 12, generator=torch.Generator().manual_seed(seed)) + 0.01
    new = calibrated_per_latent(by_latent(k, [0.3] * 12, UNIFORM, scale), x)
    assert new.encode(x).fired().tolist() == [60 * k / 12] * 12


def test_no_threshold_falls_below_zero() -> None:
    x = torch.tensor([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0], [4.0, 5.0]])
    assert calibrated_per_latent(by_latent(2, [0.5, 0.5], UNIFORM), x).threshold.tolist() == [0.5, 0.0]
    assert calibrated_per_latent(by_latent(1, [0.5, 0.5], UNIFORM), x).threshold.tolist() == [2.5, 0.0]


def test_silent_latents_stay_silent_latent_by_latent() -> None:
    never = torch.finfo(torch.float32).max
    new = calibrated_per_latent(by_latent(1, [1.0, never, 1.0], UNIFORM), torch.rand(30, 3) + 0.5)
    assert new.threshold[1] == never


def test_tiles_of_latents_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, dictionary = torch.randn(50, 12), by_latent(2, [0.3] * 12, UNIFORM)
    whole = calibrated_per_latent(dictionary, x)
    monkeypatch.setattr("saelab.dictionaries.calibration._TILE_ELEMENTS", 50 * 5)
    assert torch.equal(calibrated_per_latent(dictionary, x).threshold, whole.threshold)


def test_only_feature_choice_goes_latent_by_latent() -> None:
    with pytest.raises(UserError, match="calibrate all by one factor"):
        calibrated_per_latent(identity(1, [1.0, 1.0]), torch.rand(3, 2))
