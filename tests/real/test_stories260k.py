"""A pretrained model by others: Llama style, grouped-query attention, rotary positions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from saelab.models import Intervention, LanguageModel, Site

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "models" / "stories260K"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/data/models/stories260K isn't there"),
]
CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
LAYER = 2


@pytest.fixture(scope="module")
def model():
    return LanguageModel.load(FOLDER, device="cpu")


@pytest.fixture(scope="module")
def plain():
    return AutoModelForCausalLM.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def row(model):
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    return torch.tensor([model.tokenizer(text)["input_ids"]])


def test_its_shape_and_tokenizer(model, row):
    assert (model.n_layers, model.d_model, model.n_heads, model.n_kv_heads, model.d_head) == (5, 64, 8, 4, 8)
    assert (model.n_ctx, model.d_vocab, model.bos_token_id) == (512, 512, 1)
    assert row[0, 0] == model.bos_token_id
    assert (model.width(Site(0, "q")), model.width(Site(0, "k")), model.width(Site(0, "v", 3))) == (64, 32, 8)


def test_it_predicts_stories(model, row):
    assert model.loss(row).mean() < 2


def test_activations_and_gradients_equal_hugging_faces(model, plain, row):
    block = plain.model.layers[LAYER]
    taps: dict[Any, tuple[Any, str]] = {
        "resid_pre": (block, "in"),
        "resid_mid": (block.post_attention_layernorm, "in"),
        "resid_post": (block, "out"),
        "attn_out": (block.self_attn, "out"),
        "mlp_out": (block.mlp, "out"),
        "z": (block.self_attn.o_proj, "in"),
        "q": (block.self_attn.q_proj, "out"),
        "k": (block.self_attn.k_proj, "out"),
        "v": (block.self_attn.v_proj, "out"),
    }
    seen = {}

    def record(kind, side):
        def hook(module, args, kwargs, output):
            x = output[0] if isinstance(output, tuple) else output
            seen[kind] = (args[0] if args else kwargs["hidden_states"]) if side == "in" else x

        return hook

    handles = [m.register_forward_hook(record(kind, side), with_kwargs=True) for kind, (m, side) in taps.items()]
    try:
        loss = plain(row, labels=row).loss * (row.shape[1] - 1)  # Hugging Face's is a mean
    finally:
        for handle in handles:
            handle.remove()
    expected = dict(zip(seen, torch.autograd.grad(loss, list(seen.values())), strict=True))
    activations, gradients = model.activations_and_gradients(row, [Site(LAYER, kind) for kind in taps])
    for kind, x in seen.items():
        assert_close(activations[Site(LAYER, kind)], x.detach(), **CLOSE)
        assert_close(gradients[Site(LAYER, kind)], expected[kind], **CLOSE)
    assert_close(model.loss(row).sum(), loss.detach(), **CLOSE)


def test_greedy_text_equals_hugging_faces(model, plain, row):
    plain.generation_config.eos_token_id = None  # ours always generates as many tokens as asked for
    expected = plain.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=30, do_sample=False, pad_token_id=0
    )
    assert torch.equal(model.generate(row, 30, temperature=0), expected)


def test_zeroing_a_head_equals_doing_so_before_the_output_projection(model, plain, row):
    def zero(module, args):
        return (args[0].index_fill(-1, torch.arange(24, 32), 0),)  # head 3

    handle = plain.model.layers[LAYER].self_attn.o_proj.register_forward_pre_hook(zero)
    try:
        expected = plain(row).logits.detach()
    finally:
        handle.remove()
    with model.intervene(Intervention(Site(LAYER, "z", 3), torch.zeros_like)):
        assert_close(model.logits(row), expected, **CLOSE)
