"""Presets and the grid, as a user writes them."""

from typing import Any

import pytest

from saelab.config import load_config
from saelab.errors import UserError
from saelab.training.config import TrainConfig


def sae(**overrides: Any) -> Any:
    return load_config(TrainConfig, None, {"sae.d_sae": 64, "sae.k": 4} | overrides).sae


@pytest.mark.parametrize(
    ("preset", "affinity", "allocation"),
    [
        ("topk", "activation", "token"),
        ("mutual-choice", "activation", "mutual"),
        ("feature-choice", "activation", "feature"),
        ("gradient", "gradient", "token"),
    ],
)
def test_presets_are_points_of_the_grid(preset: str, affinity: str, allocation: str) -> None:
    config = sae(**{"sae.preset": preset})
    assert (config.affinity.kind, config.allocation.kind, config.architecture) == (affinity, allocation, preset)


def test_the_preset_fills_only_what_is_not_given() -> None:
    config = sae(**{"sae.preset": "gradient", "sae.affinity.beta": 3, "sae.allocation.kind": "mutual"})
    assert (config.affinity.beta, config.architecture) == (3, "gradient × mutual")


def test_a_dumped_config_replays_itself() -> None:
    config = load_config(TrainConfig, None, {"sae.d_sae": 64, "sae.preset": "feature-choice"})
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"sae.k": 65}, "65 active latents per token (k, k_warmup.start) can't exceed d_sae = 64"),
        ({"sae.kk": 1}, "unknown key 'sae.kk'; did you mean 'k'"),
        ({"batch": "1M"}, "batch = 1000000 tokens can't exceed buffer"),
        ({"tokens": 10}, "less than one batch"),
        ({"sae.preset": "top-k"}, "sae.preset: input should be 'topk'"),
        ({"optimizer.lr": "nan"}, "optimizer.lr"),
        ({"tokens": "1.5 apples"}, "is not a size"),
        ({"sae.preset": "feature-choice", "sae.allocation.warmup_fraction": 0}, "fitted zipf budgets need densities"),
    ],
)
def test_refusals_are_one_clear_sentence(overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        sae(**overrides)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)
