"""Activations, losses and gradients are those of the plain Hugging Face model, at every kind of site."""

import copy
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from saelab.errors import UserError
from saelab.models import Intervention, LanguageModel, Site
from saelab.models.site import HEAD_KINDS, KINDS

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
LAYER = 1


def sites_of(family):
    return {kind: Site(LAYER, kind) for kind in family.taps(family.plain, LAYER)}


def test_activations_equal_hugging_face_hooks(family):
    tokens = family.tokens()
    expected, _, _ = family.recorded(tokens, LAYER)
    for kind, site in sites_of(family).items():  # one at a time: alone, a site must still arrive
        found = family.model.activations(tokens, [site])[site]
        assert found.shape[-1] == family.model.width(site)
        assert_close(found, expected[kind], **CLOSE)


def test_all_sites_of_all_layers_in_one_pass(family):
    tokens = family.tokens()
    sites = [Site(layer, site.kind) for layer in range(family.model.n_layers) for site in sites_of(family).values()]
    found = family.model.activations(tokens, sites)
    for layer in range(family.model.n_layers):
        expected, _, _ = family.recorded(tokens, layer)
        for kind, x in expected.items():
            assert_close(found[Site(layer, kind)], x, **CLOSE)


def test_loss_and_logits_equal_hugging_face(family):
    tokens = family.tokens()
    _, _, losses = family.recorded(tokens, LAYER)
    found = family.model.loss(tokens)
    assert found.dtype == torch.float32
    assert found.shape == (2, 11)
    assert_close(found, losses, **CLOSE)
    assert_close(family.model.logits(tokens), family.plain(tokens).logits.detach(), **CLOSE)
    # Hugging Face's own loss is the mean of ours
    assert_close(found.mean(), family.plain(tokens, labels=tokens).loss.detach(), **CLOSE)


def test_gradients_equal_autograd_on_the_plain_model(family):
    tokens = family.tokens()
    sites = sites_of(family)
    activations, gradients, _ = family.recorded(tokens, LAYER)
    found, found_gradients = family.model.activations_and_gradients(tokens, list(sites.values()))
    for kind, site in sites.items():
        assert_close(found[site], activations[kind], **CLOSE)
        assert_close(found_gradients[site], gradients[kind], **CLOSE)
        assert found_gradients[site].abs().max() > 1e-3  # not 0 = 0


def test_gradient_of_one_site_alone_equals_that_of_all_together(family):
    tokens = family.tokens()
    _, gradients, _ = family.recorded(tokens, LAYER)
    for kind, site in sites_of(family).items():
        _, found = family.model.activations_and_gradients(tokens, [site])
        assert_close(found[site], gradients[kind], **CLOSE)


def test_last_position_has_no_gradient(gpt2):
    site = Site(2, "resid_post")
    _, gradients = gpt2.model.activations_and_gradients(gpt2.tokens(), [site])
    assert gradients[site][:, -1].abs().max() == 0
    assert gradients[site][:, -2].abs().max() > 0


def test_activations_and_loss_are_those_of_two_passes(family):
    tokens, site = family.tokens(), Site(LAYER, "resid_post")
    activations, loss = family.model.activations_and_loss(tokens, [site])
    assert torch.equal(activations[site], family.model.activations(tokens, [site])[site])
    assert torch.equal(loss, family.model.loss(tokens))


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_heads_lie_side_by_side_in_the_whole_site(family, kind):
    model, tokens = family.model, family.tokens()
    heads = model.n_kv_heads if kind in "kv" else model.n_heads
    whole, parts = Site(LAYER, kind), [Site(LAYER, kind, head) for head in range(heads)]
    found = model.activations(tokens, [whole, *parts])
    assert torch.equal(torch.cat([found[part] for part in parts], -1), found[whole])
    assert model.width(parts[0]) == model.d_head


def test_forward_stops_after_the_last_site_needed(gpt2):
    reached = []
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: reached.append(layer))
        for layer, block in enumerate(gpt2.model._bridge._bridge.blocks)
    ]
    try:
        gpt2.model.activations(gpt2.tokens(), [Site(0, "z"), Site(1, "resid_pre")])
    finally:
        for handle in handles:
            handle.remove()
    assert reached == [0, 1]


def test_plain_forwards_build_no_graph(gpt2):
    with torch.enable_grad():
        assert not gpt2.model.logits(gpt2.tokens()).requires_grad
        assert not gpt2.model.activations(gpt2.tokens(), [Site(0, "z")])[Site(0, "z")].requires_grad


def test_gradients_come_even_where_autograd_is_off(gpt2):
    with torch.no_grad():
        _, gradients = gpt2.model.activations_and_gradients(gpt2.tokens(), [Site(0, "resid_pre")])
    assert gradients[Site(0, "resid_pre")].abs().max() > 0


def test_a_site_that_never_arrives_is_an_internal_error(gpt2, monkeypatch):
    # as with the bridge's stop_at_layer=1, which returns nothing for blocks.1.hook_resid_pre
    block = gpt2.model._bridge._bridge.blocks[1]
    monkeypatch.setitem(block.__dict__, "forward", lambda hidden_states, *_, **__: hidden_states)
    with pytest.raises(RuntimeError, match="never arrived"):
        gpt2.model.activations(gpt2.tokens(), [Site(1, "attn_out")])


def test_gpt2_smalls_shape(gpt2_small):
    model, tokens = gpt2_small.model, gpt2_small.tokens(rows=1, length=16)
    assert (model.n_layers, model.d_model, model.n_heads, model.d_head) == (12, 768, 12, 64)
    assert (model.n_ctx, model.d_vocab, model.bos_token_id) == (1024, 50257, 50256)
    expected, gradients, losses = gpt2_small.recorded(tokens, 6)
    sites = {kind: Site(6, kind) for kind in expected}
    assert set(sites) == set(KINDS)
    found, found_gradients = model.activations_and_gradients(tokens, list(sites.values()))
    for kind, site in sites.items():
        assert_close(found[site], expected[kind], **CLOSE)
        assert_close(found_gradients[site], gradients[kind], **CLOSE)
    assert_close(model.loss(tokens), losses, **CLOSE)
    before = Site(6, "resid_pre")  # the trap: asked for alone, it must arrive
    assert_close(model.activations(tokens, [before])[before], expected["resid_pre"], **CLOSE)


def test_bfloat16_keeps_its_dtype_and_gives_a_float32_loss(gpt2):
    model = LanguageModel.from_hf(copy.deepcopy(gpt2.plain).to(torch.bfloat16), name="bf16")
    tokens, site = gpt2.tokens(), Site(1, "resid_mid")
    with model.intervene(Intervention(site, lambda x: x.float())):  # fn may compute in fp32
        found = model.activations(tokens, [site])[site]
        loss = model.loss(tokens)
    assert found.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert_close(loss, gpt2.model.loss(tokens), atol=0.2, rtol=0)


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (torch.zeros(1, 49, dtype=torch.long), "rows of 49 tokens exceed the context"),
        (torch.tensor([[0, 101]]), "token id 101 isn't among"),
        (torch.tensor([[-1, 5]]), "token id -1"),
        (torch.tensor([1, 2]), r"shape \[batch, position\]"),
        (torch.zeros(1, 2), r"shape \[batch, position\]"),
        (torch.zeros(0, 4, dtype=torch.long), r"shape \[batch, position\]"),
    ],
)
def test_tokens_that_are_no_batch_of_rows(gpt2, tokens, sentence):
    with pytest.raises(UserError, match=sentence):
        gpt2.model.loss(tokens)


def test_sites_that_the_model_lacks(gpt2, llama, parallel_neox):
    with pytest.raises(UserError, match="layers 0 to 2"):
        gpt2.model.check(Site(3, "z"))
    with pytest.raises(UserError, match="z has 4 heads"):
        gpt2.model.check(Site(0, "z", 4))
    with pytest.raises(UserError, match="k has 2 heads"):
        llama.model.check(Site(0, "k", 2))
    with pytest.raises(UserError, match="side by side"):
        parallel_neox.model.activations(parallel_neox.tokens(), [Site(0, "resid_mid")])
    llama.model.check(Site(0, "q", 3))


def test_what_else_is_asked_for_changes_no_bit(family):
    """Neither of activations nor of gradients, at any kind of site, heads of an earlier layer included."""
    tokens = family.tokens()
    sites = [Site(layer, kind) for layer in (0, LAYER) for kind in sites_of(family)]
    together = family.model.activations(tokens, sites)
    with_gradients, gradients = family.model.activations_and_gradients(tokens, sites)
    for site in sites:
        alone = family.model.activations(tokens, [site])[site]
        assert torch.equal(together[site], alone), site
        assert torch.equal(with_gradients[site], alone), site
        assert torch.equal(gradients[site], family.model.activations_and_gradients(tokens, [site])[1][site]), site


def test_gradients_at_some_of_the_sites(gpt2):
    tokens, early, late = gpt2.tokens(), Site(0, "resid_post"), Site(2, "z")
    activations, gradients = gpt2.model.activations_and_gradients(tokens, [early, late], [late])
    assert list(activations) == [early, late]
    assert list(gradients) == [late]
    assert torch.equal(gradients[late], gpt2.model.activations_and_gradients(tokens, [late])[1][late])


def test_no_loss_of_predicting_padding_enters_gradients(gpt2):
    """A row filled up on the right has the gradients of the short row, and none where there is padding."""
    tokens, site = gpt2.tokens(), Site(1, "resid_post")
    real = torch.ones(tokens.shape, dtype=torch.bool)
    real[0, 7:] = False
    _, padded = gpt2.model.activations_and_gradients(tokens, [site], real=real)
    _, short = gpt2.model.activations_and_gradients(tokens[:1, :7], [site])
    _, whole = gpt2.model.activations_and_gradients(tokens[1:], [site])
    assert_close(padded[site][0, :7], short[site][0], **CLOSE)
    assert padded[site][0, 6:].abs().max() == 0  # the last real token's prediction is of padding
    assert padded[site][0, 5].abs().max() > 0
    assert_close(padded[site][1], whole[site][0], **CLOSE)


def test_a_gradient_at_a_head_passes_through_what_replaces_the_attentions_output(gpt2):
    """z is read beside the fused attention, but not where its way on leads through an intervention."""
    tokens, z = gpt2.tokens(), Site(2, "z")
    _, plain = gpt2.model.activations_and_gradients(tokens, [z])
    with gpt2.model.intervene(Intervention(Site(2, "attn_out"), lambda x: 0 * x)):
        _, cut = gpt2.model.activations_and_gradients(tokens, [z])
    assert plain[z].abs().max() > 0
    assert cut[z].abs().max() == 0
