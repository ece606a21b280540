"""What a dictionary sees in one text, against the model and the dictionary asked one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saelab.corpora.rows import Reason
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.features.prompt import Contrast, most_different, read_prompt
from saelab.models import Intervention, LanguageModel, Site
from tests.features.conftest import CONTEXT, D_SAE, WIDTH, K

SITE = Site.parse("blocks.0.resid_post")
MakeDictionary = Callable[..., tuple[Path, Dictionary]]


@pytest.fixture(scope="module")
def ids(tokenizer: Any) -> Tensor:
    """The separator, nine letters, the separator once more, and two letters."""
    return torch.tensor([0, *tokenizer("the sun s")["input_ids"], 0, *tokenizer("at")["input_ids"]])


def exact(dictionary: Dictionary) -> Dictionary:
    """One latent for each direction of the space and its opposite: what it rebuilds is what it reads."""
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    config = dictionary.config.model_copy(update={"d_sae": 2 * WIDTH, "k": 2 * WIDTH})
    return replace(dictionary, W_enc=both, W_dec=both.clone(), b_enc=torch.zeros(2 * WIDTH), config=config)


def test_what_is_left_out_has_its_reason_and_no_codes(model: LanguageModel, random_run: Any, ids: Tensor) -> None:
    reading = read_prompt(model, random_run[1], ids)
    expected = [Reason.FIRST, *[0] * 9, Reason.SPECIAL, 0, 0]
    assert reading.excluded.tolist() == expected
    assert reading.codes.counts.tolist() == [K if reason == 0 else 0 for reason in expected]
    assert reading.error.isnan().tolist() == [reason != 0 for reason in expected]
    assert reading.scored.tolist() == [reason == 0 for reason in expected[:-1]] + [False]


def test_codes_and_error_are_those_of_the_dictionary(model: LanguageModel, random_run: Any, ids: Tensor) -> None:
    reading = read_prompt(model, random_run[1], ids)
    x = model.activations(ids[None], [SITE])[SITE][0]
    codes = random_run[1].encode(x)
    x_hat = random_run[1].decode(codes)
    for position in (1, 5, 12):
        latents, values = reading.at(position)
        assert latents.tolist() == codes.take(position, position + 1).latents.tolist()
        assert_close(values, codes.take(position, position + 1).values)
        error = (x[position] - x_hat[position]).square().sum() / x[position].square().sum()
        assert_close(reading.error[position], error)
    dense = codes.to_dense() * reading.kept[:, None]
    assert_close(reading.of(9), dense[:, 9])
    assert_close(reading.largest(), dense.amax(0))


def test_losses_are_the_models(model: LanguageModel, random_run: Any, ids: Tensor) -> None:
    dictionary, reading = random_run[1], read_prompt(model, random_run[1], ids)
    assert_close(reading.clean.loss[:-1], model.loss(ids[None])[0])
    assert reading.clean.loss[-1].isnan()

    def put(x: Tensor) -> Tensor:
        return torch.where(reading.kept[None, :, None], dictionary(x), x)

    with model.intervene(Intervention(SITE, put)):
        assert_close(reading.rebuilt.loss[:-1], model.loss(ids[None])[0])
        after = model.logits(ids[None])[0, 4].softmax(-1)
    before = model.logits(ids[None])[0, 4].softmax(-1).topk(12)
    assert reading.likeliest[4].tolist() == before.indices.tolist()
    assert_close(reading.clean.probability[4], before.values)
    assert_close(reading.rebuilt.probability[4], after[before.indices])


@pytest.mark.parametrize("site", ["blocks.1.resid_mid", "blocks.1.mlp_out", "blocks.0.attn.z"])
def test_a_perfect_dictionary_costs_nothing(
    model: LanguageModel, make_dictionary: MakeDictionary, ids: Tensor, site: str
) -> None:
    reading = read_prompt(model, exact(make_dictionary(site)[1]), ids)
    assert reading.error[reading.kept].max() < 1e-10
    assert_close(reading.rebuilt.loss, reading.clean.loss, equal_nan=True)
    assert_close(reading.rebuilt.probability, reading.clean.probability)


def test_a_transcoder_is_held_against_what_it_writes(
    model: LanguageModel, make_transcoder: Callable[[tuple[str, ...]], Path], ids: Tensor
) -> None:
    from saelab.dictionaries.artifact import load

    targets = ("blocks.0.mlp_out", "blocks.1.mlp_out")
    transcoder = load(make_transcoder(targets))
    reading = read_prompt(model, transcoder, ids)
    sites = [SITE, *map(Site.parse, targets)]
    x = model.activations(ids[None], sites)
    written = torch.cat([x[site] for site in sites[1:]], dim=-1)[0, 3]
    x_hat = transcoder(x[SITE][0, 3:4])[0]
    assert_close(reading.error[3], (written - x_hat).square().sum() / written.square().sum())


def test_a_text_of_which_nothing_is_kept_is_read_all_the_same(model: LanguageModel, random_run: Any) -> None:
    reading = read_prompt(model, random_run[1], torch.tensor([0]))
    assert not reading.kept.any()
    assert reading.codes.nnz == 0
    assert not reading.scored.any()


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_text_that_does_not_fit_is_refused(model: LanguageModel, random_run: Any, length: int) -> None:
    with pytest.raises(UserError, match=r"no token|exceed the context"):
        read_prompt(model, random_run[1], torch.ones(length, dtype=torch.int64))


def test_most_different_by_hand() -> None:
    one, other = torch.zeros(D_SAE), torch.zeros(D_SAE)
    one[3], other[3] = 5.0, 4.0
    one[8] = 2.0
    other[1] = 6.0
    assert most_different(one, other, 2) == [Contrast(1, 0.0, 6.0), Contrast(8, 2.0, 0.0)]
    assert most_different(one, one, 5) == []
