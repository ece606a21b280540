"""Models of the widths that people use, with random weights and two blocks: every kind of site, as in Hugging Face."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from saelab.models import LanguageModel, Site
from saelab.models.site import KINDS
from tests.models.conftest import Pair, gemma2_taps, gpt2_taps, llama_taps, neox_taps

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
BLOCKS, WORDS = 2, 211
SHORT: dict[str, Any] = {"num_hidden_layers": BLOCKS, "vocab_size": WORDS, "bos_token_id": 1, "eos_token_id": 2}
SHAPES: dict[str, tuple[Callable[[], Any], Any]] = {
    "gpt2-medium": (
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=1024, n_head=16, n_layer=BLOCKS, vocab_size=WORDS)),
        gpt2_taps,
    ),
    "pythia-160m": (
        lambda: GPTNeoXForCausalLM(
            GPTNeoXConfig(
                hidden_size=768, num_attention_heads=12, intermediate_size=3072, max_position_embeddings=2048, **SHORT
            )
        ),
        neox_taps,
    ),
    "llama-3.2-1b": (
        lambda: LlamaForCausalLM(
            LlamaConfig(
                hidden_size=2048, num_attention_heads=32, num_key_value_heads=8, head_dim=64, intermediate_size=8192,
                max_position_embeddings=131_072, tie_word_embeddings=True,
                rope_parameters={
                    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
                },
                **SHORT,
            )
        ),
        llama_taps,
    ),
    "gemma-2-2b": (
        lambda: Gemma2ForCausalLM(
            Gemma2Config(
                hidden_size=2304, num_attention_heads=8, num_key_value_heads=4, head_dim=256, intermediate_size=9216,
                query_pre_attn_scalar=256, sliding_window=8, **SHORT,
            )
        ),
        gemma2_taps,
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=list(SHAPES))
def shape(request):
    torch.manual_seed(0)
    make, taps = SHAPES[request.param]
    hf = make().eval()
    return Pair(LanguageModel.from_hf(copy.deepcopy(hf), name=request.param), hf, taps)


def test_activations_and_gradients_are_hugging_faces(shape):
    tokens, layer = shape.tokens(rows=2, length=12), BLOCKS - 1
    expected, gradients, losses = shape.recorded(tokens, layer)
    sites = {kind: Site(layer, kind) for kind in expected}
    assert set(KINDS) - set(sites) <= {"resid_mid"}
    found, found_gradients = shape.model.activations_and_gradients(tokens, list(sites.values()))
    for kind, site in sites.items():
        assert_close(found[site], expected[kind], **CLOSE)
        assert_close(found_gradients[site], gradients[kind], **CLOSE)
    assert_close(shape.model.loss(tokens), losses, **CLOSE)


def test_a_site_is_a_hidden_state_and_the_pass_ends_there(shape):
    tokens = shape.tokens(rows=2, length=12)
    with torch.no_grad():
        hidden = shape.plain(tokens, output_hidden_states=True).hidden_states
    reached: list[int] = []
    blocks = shape.model._bridge._bridge.blocks
    handles = [block.register_forward_pre_hook(lambda *_, n=n: reached.append(n)) for n, block in enumerate(blocks)]
    try:
        found = shape.model.activations(tokens, [Site(0, "resid_post")])[Site(0, "resid_post")]
    finally:
        for handle in handles:
            handle.remove()
    assert_close(found, hidden[1], **CLOSE)
    assert reached == [0]
