"""Interventions do to the model what the same surgery does to the plain Hugging Face model, and leave no trace."""

import threading
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from saelab.errors import UserError
from saelab.models import Intervention, Site
from saelab.models.site import HEAD_KINDS

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
LAYER = 1
RESIDUAL = ("resid_pre", "resid_mid", "resid_post")


def output_projection(family):
    return family.taps(family.plain, LAYER)["z"].module


def test_replacing_a_site_by_its_own_value_changes_nothing(family):
    model, tokens = family.model, family.tokens()
    for kind in family.taps(family.plain, LAYER):
        site = Site(LAYER, kind)
        own = model.activations(tokens, [site])[site]
        with model.intervene(Intervention(site, lambda x: x)):
            untouched = model.logits(tokens)
        with model.intervene(Intervention(site, lambda x, own=own: own.clone())):
            assert torch.equal(model.logits(tokens), untouched)
        assert_close(untouched, model.logits(tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_replacing_a_head_by_its_own_value_changes_nothing(family, kind):
    model, tokens = family.model, family.tokens()
    with model.intervene(Intervention(Site(LAYER, kind, 1), lambda x: x.clone())):
        assert_close(model.logits(tokens), family.plain(tokens).logits.detach(), **CLOSE)


def test_zeroing_a_head_equals_zeroing_it_before_the_output_projection(family):
    model, tokens, head = family.model, family.tokens(), 2
    columns = slice(head * model.d_head, (head + 1) * model.d_head)

    def zero(module, args):
        z = args[0].clone()
        z[..., columns] = 0
        return (z, *args[1:])

    handle = output_projection(family).register_forward_pre_hook(zero)
    try:
        expected = family.plain(tokens).logits.detach()
    finally:
        handle.remove()
    with model.intervene(Intervention(Site(LAYER, "z", head), torch.zeros_like)):
        found = model.logits(tokens)
    assert_close(found, expected, **CLOSE)
    assert (found - model.logits(tokens)).abs().max() > 1e-3


def test_replacing_each_output_equals_a_plain_hook_that_replaces_it(family):
    model, tokens = family.model, family.tokens()
    edit = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    for kind in ("attn_out", "mlp_out", "resid_post"):

        def add(module, args, output):
            return (output[0] + edit, *output[1:]) if isinstance(output, tuple) else output + edit

        handle = family.taps(family.plain, LAYER)[kind].module.register_forward_hook(add)
        try:
            expected = family.plain(tokens).logits.detach()
        finally:
            handle.remove()
        with model.intervene(Intervention(Site(LAYER, kind), lambda x: x + edit)):
            assert_close(model.logits(tokens), expected, **CLOSE)


def test_the_whole_residual_stream_is_replaced_at_every_residual_site(family):
    """With the stream set to a constant, nothing of the tokens before can be left in it."""
    model = family.model
    one, other = family.tokens(), family.tokens().flip(-1)
    constant = torch.randn(model.d_model, generator=torch.Generator().manual_seed(2))
    for kind in RESIDUAL:
        site = Site(LAYER, kind)
        if kind not in family.taps(family.plain, LAYER):
            continue
        with model.intervene(Intervention(site, lambda x: constant.expand_as(x))):
            assert_close(model.logits(one), model.logits(other), **CLOSE)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "neox-sequential"], indirect=True)
def test_resid_mid_can_be_changed_through_what_is_added_to_it(family):
    """resid_mid = resid_pre + attn_out, so adding a vector to either must do the same."""
    model, tokens = family.model, family.tokens()
    edit = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    with model.intervene(Intervention(Site(LAYER, "attn_out"), lambda x: x + edit)):
        expected = model.logits(tokens)
    sites = [Site(LAYER, "resid_mid"), Site(LAYER, "resid_post")]
    clean = model.activations(tokens, sites)
    with model.intervene(Intervention(sites[0], lambda x: x + edit)):
        assert_close(model.logits(tokens), expected, **CLOSE)
        edited = model.activations(tokens, sites)
    assert_close(edited[sites[0]], clean[sites[0]] + edit, **CLOSE)
    assert (edited[sites[1]] - clean[sites[1]] - edit).abs().max() > 1e-4  # the MLP read the edit too


def test_keys_and_values_can_be_replaced(family):
    """With every value vector zero, attention adds only its output projection's bias."""
    model, tokens = family.model, family.tokens()
    z, v = Site(LAYER, "z"), Site(LAYER, "v")
    with model.intervene(Intervention(v, torch.zeros_like)):
        assert model.activations(tokens, [z])[z].abs().max() == 0
    # with equal keys, attention is even: the first positions' z are running means of v
    with model.intervene(Intervention(Site(LAYER, "q"), torch.zeros_like)):
        found = model.activations(tokens, [z, v])
    groups = model.n_heads // model.n_kv_heads
    values = found[v].unflatten(-1, (model.n_kv_heads, -1)).repeat_interleave(groups, dim=2).flatten(2)
    window = 6  # the shortest attention window among the families
    means = values.cumsum(1) / torch.arange(1, tokens.shape[1] + 1)[:, None]
    assert_close(found[z][:, :window], means[:, :window], **CLOSE)


def test_interventions_compose_in_order(gpt2):
    model, tokens, site = gpt2.model, gpt2.tokens(), Site(0, "resid_post")
    double, plus = Intervention(site, lambda x: 2 * x), Intervention(site, lambda x: x + 1)
    clean = model.activations(tokens, [site])[site]
    with model.intervene(double, plus):
        assert_close(model.activations(tokens, [site])[site], 2 * clean + 1)
    with model.intervene(plus):
        with model.intervene(double):
            assert_close(model.activations(tokens, [site])[site], 2 * (clean + 1))
        assert_close(model.activations(tokens, [site])[site], clean + 1)


def test_a_head_and_the_whole_site_compose_in_order(gpt2):
    model, tokens, whole = gpt2.model, gpt2.tokens(), Site(0, "z")
    head = Intervention(Site(0, "z", 1), torch.zeros_like)
    with model.intervene(head, Intervention(whole, lambda x: x + 1)):
        found = model.activations(tokens, [whole])[whole].unflatten(-1, (4, 8))
    assert torch.equal(found[..., 1, :], torch.ones_like(found[..., 1, :]))


def test_interventions_end_with_their_block_even_on_an_error(gpt2):
    model, tokens = gpt2.model, gpt2.tokens()
    clean = model.logits(tokens)

    def fail(x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), model.intervene(Intervention(Site(1, "resid_mid"), fail)):
        model.logits(tokens)
    with pytest.raises(ZeroDivisionError), model.intervene(Intervention(Site(1, "z"), fail)):
        model.activations(tokens, [Site(2, "z")])
    assert torch.equal(model.logits(tokens), clean)
    assert not model._bridge._bridge.list_hooks()


def test_an_intervention_that_is_never_reached_is_an_internal_error(gpt2, monkeypatch):
    block = gpt2.model._bridge._bridge.blocks[1]
    monkeypatch.setitem(block.__dict__, "forward", lambda hidden_states, *_, **__: hidden_states)
    with gpt2.model.intervene(Intervention(Site(1, "attn_out"), torch.zeros_like)):
        gpt2.model.activations(gpt2.tokens(), [Site(0, "z")])  # ends before
        with pytest.raises(RuntimeError, match="never arrived"):
            gpt2.model.logits(gpt2.tokens())


def test_an_intervention_can_not_run_the_model_it_is_in(gpt2):
    tokens = gpt2.tokens()

    def recurse(x):
        return gpt2.model.activations(tokens, [Site(0, "resid_post")])[Site(0, "resid_post")]

    clean = gpt2.model.logits(tokens)
    inside = pytest.raises(RuntimeError, match="from inside its own forward pass")
    with gpt2.model.intervene(Intervention(Site(1, "resid_post"), recurse)), inside:
        gpt2.model.logits(tokens)
    assert torch.equal(gpt2.model.logits(tokens), clean)


def test_threads_have_their_own_interventions(gpt2):
    tokens, found = gpt2.tokens(), {}

    def work(factor):
        with gpt2.model.intervene(Intervention(Site(0, "resid_post"), lambda x: factor * x)):
            found[factor] = [gpt2.model.logits(tokens) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(factor,)) for factor in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_close(found[1.0], [gpt2.model.logits(tokens)] * 5, **CLOSE)
    with gpt2.model.intervene(Intervention(Site(0, "resid_post"), lambda x: 2 * x)):
        assert_close(found[2.0], [gpt2.model.logits(tokens)] * 5, **CLOSE)


def test_gradients_are_those_of_the_model_under_intervention(gpt2):
    model, tokens = gpt2.model, gpt2.tokens()
    block = gpt2.plain.transformer.h[0]
    handle = block.register_forward_hook(lambda module, args, output: 3 * output)
    try:
        _, expected, _ = gpt2.recorded(tokens, 1)
    finally:
        handle.remove()
    with model.intervene(Intervention(Site(0, "resid_post"), lambda x: 3 * x)):
        _, found = model.activations_and_gradients(tokens, [Site(1, kind) for kind in expected])
    for kind, gradient in expected.items():
        assert_close(found[Site(1, kind)], gradient, **CLOSE)


def test_what_is_overwritten_further_on_has_gradient_zero(gpt2):
    early, late = Site(0, "resid_post"), Site(1, "resid_post")
    constant = torch.ones(32)
    with gpt2.model.intervene(Intervention(late, lambda x: constant.expand_as(x))):
        _, found = gpt2.model.activations_and_gradients(gpt2.tokens(), [early, late])
    assert found[early].abs().max() == 0
    assert found[late].abs().max() > 0


def test_an_intervention_at_a_missing_site_or_of_the_wrong_shape(gpt2):
    with pytest.raises(UserError, match="layers 0 to 2"), gpt2.model.intervene(Intervention(Site(9, "z"), lambda x: x)):
        pass
    wrong = Intervention(Site(0, "z", 1), lambda x: x[..., :3])
    with gpt2.model.intervene(wrong), pytest.raises(ValueError, match=r"blocks.0.attn.z.head1 returned"):
        gpt2.model.logits(gpt2.tokens())
