"""Every shipped harvest config is one that `saelab harvest` takes, and says in its comments what its settings cost."""

import re
from pathlib import Path

import pytest

from saelab.activations.config import HarvestConfig
from saelab.activations.sites import last_layer
from saelab.config import build, read_settings
from saelab.training.config import TrainConfig

FOLDER = Path(__file__).parent.parent / "configs"
HARVESTS = sorted((FOLDER / "harvest").glob("*.yaml"))
WIDTHS = {"gpt2-small": 768, "pythia-160m": 768, "llama-3.2-1b": 2048, "gemma-2-2b": 2304}
LAYERS = {"gpt2-small": 12, "pythia-160m": 12, "llama-3.2-1b": 16, "gemma-2-2b": 26}


def test_the_models_that_people_use_are_there() -> None:
    assert {path.stem for path in HARVESTS} == set(WIDTHS)


@pytest.mark.parametrize("path", HARVESTS, ids=lambda path: path.stem)
def test_what_it_costs_is_what_its_comment_says(path: Path) -> None:
    config = build(HarvestConfig, read_settings(path, {}), where=str(path))
    last = last_layer(config.sites)
    assert last is not None
    assert LAYERS[path.stem] // 3 <= last < LAYERS[path.stem]
    assert config.dtype == "bf16"
    assert config.policy.exclude_first > 0
    a_token = len(config.sites) * WIDTHS[path.stem] * 2 + 21
    said = re.search(r"= ([\d,]+) bytes a token, (\d+) GB", path.read_text())
    assert said is not None
    assert int(said[1].replace(",", "")) == a_token
    assert int(said[2]) == round(config.tokens * a_token / 1e9)


@pytest.mark.parametrize("path", HARVESTS, ids=lambda path: path.stem)
def test_its_training_config_is_of_the_same_model_and_text(path: Path) -> None:
    harvest = build(HarvestConfig, read_settings(path, {}), where=str(path))
    train = build(TrainConfig, read_settings(FOLDER / path.name, {}), where=path.name)
    assert train.site in harvest.sites
    assert (train.model, train.corpus, train.policy) == (harvest.model, harvest.corpus, harvest.policy)
    assert train.dtype == harvest.model_dtype


def test_settings_of_the_model_reach_it() -> None:
    from saelab.activations.plan import load_model

    def loaded(**settings: object):
        config = HarvestConfig.model_validate(
            {"model": "demo", "device": "cpu", "sites": ["blocks.1.resid_post"], **settings}
        )
        return load_model(config)

    assert loaded().size.fused_attention
    assert not loaded(attn_implementation="eager").size.fused_attention
    spread = loaded(device_map="auto")._bridge._bridge.original_model
    left_out = loaded()._bridge._bridge.original_model
    assert not any(tensor.is_meta for tensor in spread.state_dict().values())
    assert any(tensor.is_meta for tensor in left_out.state_dict().values())  # blocks 2 and 3
