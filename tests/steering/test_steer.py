"""`steer` on a run on disk: a tiny GPT-2 with a byte tokenizer, and a random dictionary on it."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from saelab.config import to_yaml
from saelab.corpora import TokenPolicy
from saelab.disk import RunPaths, write_text
from saelab.errors import UserError
from saelab.models import LanguageModel
from saelab.steering.config import SteerConfig
from saelab.steering.steer import prompt_ids, steer
from saelab.training import TrainConfig

SITE = "blocks.1.resid_post"


@pytest.fixture(scope="module")
def language_model(tiny_model: Path) -> LanguageModel:
    return LanguageModel.load(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model: Path, language_model, make_dictionary) -> Path:
    policy = TokenPolicy(context=32)
    dictionary = make_dictionary(SITE, k=32)
    dictionary.b_dec.zero_()  # so that every latent fires somewhere on this model's small activations
    update = {"model": str(tiny_model), "model_fingerprint": language_model.fingerprint, "policy": policy.model_dump()}
    object.__setattr__(dictionary, "config", dictionary.config.model_copy(update=update))
    paths = RunPaths(tmp_path_factory.mktemp("run"))
    dictionary.save(paths.dictionary, golden=torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
    settings = {"model": str(tiny_model), "site": SITE, "policy": policy, "sae": {"d_sae": 32, "k": 6}}
    write_text(paths.config, to_yaml(TrainConfig.model_validate(settings)))
    return paths.root


def settings(run: Path, **changes) -> SteerConfig:
    base = {"run": run, "latent": [7], "max_new_tokens": 8, "prompt": "Once", "unit_tokens": 512, "device": "cpu"}
    return SteerConfig.model_validate({**base, **changes})


def test_the_model_as_it_is_comes_first_then_each_strength(run, language_model):
    texts = steer(settings(run, strength=[0.0, 500.0]), language_model)
    assert [(t.strength, t.edited) for t in texts] == [(None, False), (0.0, True), (500.0, True)]
    assert texts[0].text == texts[1].text != texts[2].text


def test_the_same_settings_give_the_same_texts(run, language_model):
    assert steer(settings(run), language_model) == steer(settings(run), language_model)


def test_the_seed_changes_the_draw(run, language_model):
    assert steer(settings(run, seed=1), language_model) != steer(settings(run, seed=2), language_model)


def test_the_model_that_the_dictionary_names_is_loaded(run):
    assert len(steer(settings(run, mode="zero"))) == 2


def test_the_prompt_stands_at_the_start_of_a_document(language_model):
    ids = prompt_ids(language_model, "ab")
    assert ids[0] == language_model.tokenizer.bos_token_id
    assert ids[1:].tolist() == language_model.tokenizer("ab", add_special_tokens=False)["input_ids"]


def test_a_latent_that_is_not_there_is_refused(run, language_model):
    with pytest.raises(UserError, match="latents 0 to 31"):
        steer(settings(run, latent=[32]), language_model)


def test_a_latent_that_never_fires_has_no_unit(run, language_model, monkeypatch):
    monkeypatch.setattr("saelab.steering.steer.largest_activations", lambda *_: torch.zeros(32))
    with pytest.raises(UserError, match="latent 7 never fired"):
        steer(settings(run), language_model)
    assert len(steer(settings(run, mode="zero"), language_model)) == 2  # which needs none


def test_another_model_than_in_training_is_refused(run, language_model, monkeypatch):
    monkeypatch.setattr(language_model, "fingerprint", "0" * 64)
    with pytest.raises(UserError, match="are not those that the dictionary was trained on"):
        steer(settings(run), language_model)


@pytest.mark.parametrize("changes", [{"method": "direction", "mode": "zero"}, {"mode": "scale", "strength": [-1.0]}])
def test_settings_that_mean_nothing_are_refused(run, changes: dict):
    with pytest.raises(ValidationError):
        settings(run, **changes)
