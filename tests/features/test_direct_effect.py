"""Direct effects: where the path is the whole story they add up to the logits, elsewhere they go by the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import Gemma2Config, Gemma2ForCausalLM

from saelab.dictionaries.artifact import load
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.features.direct_effect import direct_effects, obstacle, residual_directions
from saelab.features.prompt import read_prompt
from saelab.models import LanguageModel
from tests.features.conftest import WIDTH
from tests.features.test_prompt import exact

MakeDictionary = Callable[..., tuple[Path, Dictionary]]
SOME = torch.tensor([3, 0, 11])


def test_behind_the_last_layer_they_add_up_to_the_logit(
    model: LanguageModel, make_dictionary: MakeDictionary, tokenizer: Any
) -> None:
    """There the direct path is all there is, and the final norm's bias is 0 in this model: a dictionary that rebuilds
    everything explains the logit, less the mean over the vocabulary, without remainder."""
    dictionary = exact(make_dictionary("blocks.1.resid_post")[1])
    ids = torch.tensor([0, *tokenizer("red hill")["input_ids"]])
    reading, logits = read_prompt(model, dictionary, ids), model.logits(ids[None])[0]
    for position, token in ((1, 5), (4, 40), (8, 0)):
        latents, values = reading.at(position)
        effects = direct_effects(model, dictionary, latents, values, float(reading.final_scale[position]), token)
        assert_close(effects.sum(), logits[position, token] - logits[position].mean(), atol=1e-4, rtol=1e-4)


def test_by_hand(model: LanguageModel, make_dictionary: MakeDictionary) -> None:
    """Value · scale · (direct logit of the token - mean of the direct logits)."""
    dictionary = make_dictionary("blocks.0.mlp_out")[1]
    found = direct_effects(model, dictionary, SOME, torch.tensor([2.0, 1.0, 0.5]), 0.25, 17)
    direct = model.direct_logits(dictionary.decoder_directions()[SOME])
    assert_close(found, torch.tensor([0.5, 0.25, 0.125]) * (direct[:, 17] - direct.mean(1)))


@pytest.mark.parametrize("head", [None, 1])
def test_heads_write_through_their_output_projection(
    model: LanguageModel, make_dictionary: MakeDictionary, head: int | None
) -> None:
    dictionary = make_dictionary("blocks.1.attn.z" if head is None else f"blocks.1.attn.z.head{head}")[1]
    projection: Any = model._bridge._bridge.blocks[1].attn.o.original_component.weight
    width = WIDTH // 2
    rows = projection if head is None else projection[head * width : (head + 1) * width]
    assert_close(residual_directions(model, dictionary, SOME), dictionary.decoder_directions()[SOME] @ rows)


def test_several_targets_add_up(model: LanguageModel, make_transcoder: Callable[[tuple[str, ...]], Path]) -> None:
    transcoder = load(make_transcoder(("blocks.0.mlp_out", "blocks.1.mlp_out")))
    rows = transcoder.decoder_directions()[SOME]
    assert_close(residual_directions(model, transcoder, SOME), rows[:, :WIDTH] + rows[:, WIDTH:])


def test_queries_have_no_direct_path(model: LanguageModel, make_dictionary: MakeDictionary) -> None:
    dictionary = make_dictionary("blocks.1.attn.q")[1]
    assert "nothing of it goes straight to the logits" in str(obstacle(dictionary))
    with pytest.raises(UserError, match="nothing of it goes straight to the logits"):
        direct_effects(model, dictionary, SOME, torch.ones(3), 1.0, 0)
    assert obstacle(make_dictionary("blocks.1.attn.z")[1]) is None


def test_heads_whose_sum_is_normed_are_refused(tokenizer: Any, make_dictionary: MakeDictionary) -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
        initializer_range=0.3,
    )  # fmt: skip
    gemma = LanguageModel.from_hf(Gemma2ForCausalLM(config), tokenizer, name="gemma")
    with pytest.raises(UserError, match="no linear direct path"):
        residual_directions(gemma, make_dictionary("blocks.1.attn.z")[1], SOME)
