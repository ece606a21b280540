"""`steer` on a run on disk: a tiny GPT-2 with a byte tokenizer, and a random dictionary on it."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from saelab.config import build, to_yaml
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


def test_samples_are_drawn_with_seeds_in_order(run, language_model):
    texts = steer(settings(run, strength=[2.0], seed=5, samples=3), language_model)
    assert [(t.edited, t.seed) for t in texts] == [(edited, seed) for edited in (False, True) for seed in (5, 6, 7)]
    (clean, steered) = steer(settings(run, strength=[2.0], seed=6), language_model)
    assert (clean, steered) == (texts[1], texts[4])


def test_ratios_share_out_the_strength():
    config = SteerConfig.model_validate({"run": "x", "latent": [3, 1], "strength": [2.0], "ratio": [1.0, -0.5]})
    assert [(edit.latent, edit.strength) for edit in config.edits(2.0)] == [(3, 2.0), (1, -1.0)]


def test_a_ratio_acts_as_the_strength_that_it_makes(run, language_model):
    shared = steer(settings(run, latent=[7, 9], strength=[40.0], ratio=[1.0, 0.0]), language_model)
    assert [t.text for t in shared] == [t.text for t in steer(settings(run, strength=[40.0]), language_model)]


def test_positions_reach_the_text(run, language_model):
    everywhere = steer(settings(run, strength=[500.0]), language_model)
    nowhere_new = steer(settings(run, strength=[500.0], positions="0"), language_model)
    last = steer(settings(run, strength=[500.0], positions="-1:"), language_model)
    assert everywhere[0].text == nowhere_new[0].text == last[0].text
    assert last[1].text != last[0].text
    # The prompt has 5 tokens with its separator, and 8 new ones are written: the last one read is number 11.
    assert steer(settings(run, strength=[500.0], positions="11"), language_model)[1].text[:7] == last[0].text[:7]
    with pytest.raises(UserError, match="reach position 11, so nothing would be edited"):
        steer(settings(run, positions="12:"), language_model)
    with pytest.raises(UserError, match="lies before the start of a prompt of 5 tokens"):
        steer(settings(run, positions="-6"), language_model)


def test_settings_come_back_from_a_file(run):
    config = settings(run, positions="-1:", ratio=[2.0], samples=2, prompt="yes", strength=[1e-5])
    assert SteerConfig.model_validate_json(config.model_dump_json()) == config
    assert settings(run, positions=5).positions == "5"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"positions": "last"}, "positions 'last' can't be read"),
        ({"ratio": [1.0, 2.0]}, "ratio has 2 numbers for 1 latents"),
        ({"ratio": [1.0], "mode": "zero"}, "leave ratio out"),
        ({"samples": 0}, "samples: input should be greater than 0"),
    ],
)
def test_each_refusal_is_a_sentence(run, changes: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        build(SteerConfig, {"run": run, "latent": [7], **changes}, "here")
