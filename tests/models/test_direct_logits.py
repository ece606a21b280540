"""Direct logits: what a direction adds to the logits while the final norm's scale stays as it is."""

from typing import Any

import torch
from torch.testing import assert_close

from saelab.models import Site


def test_direct_logits_equal_the_final_norm_times_its_scale(family):
    """norm(u) = centred(u) / scale(u) * gain + bias, so (norm(u) - bias) * scale(u) @ W_U leaves out what should be."""
    hf = family.plain
    norm = next(m for n, m in hf.named_modules() if n.endswith(("ln_f", "final_layer_norm", "model.norm")))
    directions = torch.randn(5, family.model.d_model, generator=torch.Generator().manual_seed(4)) * 10
    centred = directions
    if isinstance(norm, torch.nn.LayerNorm):
        centred = directions - directions.mean(-1, keepdim=True)
    epsilon: Any = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None)
    scale = (centred.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
    bias = getattr(norm, "bias", None)
    with torch.no_grad():
        normed = norm(directions) - (0 if bias is None else bias)
        expected = (normed * scale) @ hf.get_output_embeddings().weight.T
    assert_close(family.model.direct_logits(directions), expected, atol=1e-4, rtol=1e-4)


def test_a_layer_norm_ignores_a_constant_direction(gpt2, llama):
    constant = torch.ones(1, 32)
    assert gpt2.model.direct_logits(constant).abs().max() < 1e-6
    assert llama.model.direct_logits(constant).abs().max() > 1e-2


def test_by_hand(gpt2):
    """The logit of token 7 for direction e_0 - e_1 (mean 0): g_0 W[7, 0] - g_1 W[7, 1]."""
    direction = torch.zeros(1, 32)
    direction[0, 0], direction[0, 1] = 1, -1
    gain, embedding = gpt2.plain.transformer.ln_f.weight, gpt2.plain.lm_head.weight
    expected = gain[0] * embedding[7, 0] - gain[1] * embedding[7, 1]
    assert_close(gpt2.model.direct_logits(direction)[0, 7], expected.detach())


def test_scale_times_direct_logits_is_the_logits_but_for_a_constant(family):
    """logits = scale(x) · direct(x) + bias W_U, before Gemma's soft cap; what is left is the same everywhere."""
    model, tokens = family.model, family.tokens()
    last = Site(model.n_layers - 1, "resid_post")
    x = model.activations(tokens, [last])[last]
    logits = model.logits(tokens).float()
    cap = getattr(family.plain.config, "final_logit_softcapping", None)
    logits = logits if cap is None else cap * torch.atanh(logits / cap)
    direct = model.direct_logits(x.flatten(0, 1)).unflatten(0, tokens.shape) * model.final_scale(x)[..., None]
    rest = (logits - direct).flatten(0, 1)
    assert_close(rest, rest[:1].expand_as(rest), atol=1e-3, rtol=1e-3)


def test_logit_directions_read_direct_logits_less_their_mean(family):
    directions = torch.randn(5, family.model.d_model, generator=torch.Generator().manual_seed(4))
    tokens = torch.tensor([3, 7, 0])
    all_logits = family.model.direct_logits(directions)
    expected = (all_logits - all_logits.mean(-1, keepdim=True))[:, tokens]
    assert_close(directions @ family.model.logit_directions(tokens).T, expected, atol=1e-4, rtol=1e-4)
