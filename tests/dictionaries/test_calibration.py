"""Thresholds that keep the budget."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.dictionaries.calibration import active_per_token, calibrated
from saelab.dictionaries.config import ActivationAffinity, DictionaryConfig, MutualChoice
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
