"""Effects of added vectors on a model whose output is linear in its last residual stream."""

import pytest
import torch
from torch import Tensor

from saelab.corpora import Cursor, TokenRows
from saelab.errors import UserError
from saelab.models import Intervention, Site
from saelab.steering.effect import (
    Contexts,
    Effects,
    effects,
    equal_strength,
    live_latents,
    own_strength,
    random_contexts,
)

LAST, FIRST = "blocks.1.resid_post", "blocks.0.resid_post"


def rows_of(tokens: Tensor, keep: Tensor | None = None) -> TokenRows:
    excluded = torch.zeros_like(tokens, dtype=torch.uint8) if keep is None else (~keep).byte()
    return TokenRows(tokens.int(), torch.zeros_like(tokens), torch.zeros_like(tokens), excluded, Cursor(), Cursor())


def test_a_direction_with_a_known_direct_effect(model, tokens, make_dictionary):
    # logits = (x - mean(x)) W_U here, so the vector v changes them by (v - mean(v)) W_U wherever it is added.
    dictionary = make_dictionary(LAST)
    vectors = own_strength(dictionary, torch.tensor([7, 20]), units=torch.full((32,), 1.5), strength=2.0)
    change = model.direct_logits(vectors) / 1e4
    found = effects(model, [Site.parse(LAST)], vectors, [Contexts(tokens[:, :4]), Contexts(tokens[:2, :9])])
    assert found.norm.tolist() == pytest.approx([3.0 / 0.5] * 2)  # unit rows, and the dictionary's scale is 0.5
    torch.testing.assert_close(found.largest, change.abs().amax(1)[:, None].expand(2, 5), rtol=1e-4, atol=1e-4)
    assert torch.equal(found.promoted, change.argmax(1)[:, None].expand(2, 5))
    assert found.agreement.tolist() == [1.0, 1.0]
    clean = torch.cat([model.logits(tokens[:, :4])[:, -1], model.logits(tokens[:2, :9])[:, -1]]).log_softmax(-1)
    for vector in range(2):
        steered = (clean + change[vector]).log_softmax(-1)
        expected = (clean.exp() * (clean - steered)).sum(-1)
        torch.testing.assert_close(found.kl[vector], expected, rtol=1e-3, atol=1e-5)


def test_a_vector_early_in_the_model_is_that_of_a_whole_pass(model, tokens, monkeypatch):
    vectors = 5 * torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    site = Site.parse(FIRST)
    found = effects(model, [site], vectors, [Contexts(tokens)])
    clean = model.logits(tokens)[:, -1]
    for number, vector in enumerate(vectors):
        with model.intervene(Intervention(site, lambda x, v=vector: torch.cat([x[:, :-1], x[:, -1:] + v], 1))):
            change = model.logits(tokens)[:, -1] - clean
        torch.testing.assert_close(found.largest[number], change.abs().amax(-1), rtol=1e-3, atol=1e-4)
    monkeypatch.setattr("saelab.steering.effect._NUMBERS_AT_ONCE", 1)  # one vector at a time
    again = effects(model, [site], vectors, [Contexts(tokens)])
    torch.testing.assert_close(again.kl, found.kl, rtol=1e-3, atol=1e-5)
    assert torch.equal(again.promoted, found.promoted)


def test_several_sites_take_their_parts_of_the_vector(model, tokens):
    both = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    first, last = Site.parse(FIRST), Site.parse(LAST)
    contexts = [Contexts(tokens)]
    split = effects(model, [first, last], torch.cat([both[:, :16], torch.zeros(1, 16)], 1), contexts)
    torch.testing.assert_close(split.kl, effects(model, [first], both[:, :16], contexts).kl)
    other = effects(model, [last, first], torch.cat([torch.zeros(1, 16), both[:, :16]], 1), contexts)
    torch.testing.assert_close(other.kl, split.kl)


def test_nothing_added_changes_nothing(model, tokens):
    found = effects(model, [Site.parse(FIRST)], torch.zeros(1, 16), [Contexts(tokens)])
    assert found.kl.abs().max() < 1e-6
    assert found.largest.max() < 1e-4


def test_agreement_and_quantiles_by_hand():
    found = Effects(
        norm=torch.tensor([1.0, 3.0]), kl=torch.tensor([[0.0, 2.0, 4.0], [1.0, 1.0, 1.0]]),
        largest=torch.ones(2, 3), promoted=torch.tensor([[5, 5, 9], [1, 2, 3]]),
    )  # fmt: skip
    assert found.agreement.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found.quantiles((0.0, 0.5, 1.0))["kl"] == [1.0, 1.5, 2.0]  # means over contexts: 2 and 1
    assert found.quantiles((0.5,))["norm"] == [2.0]


def test_matched_strength_is_matched(make_dictionary):
    vectors = equal_strength(make_dictionary(), torch.arange(32), norm=4.0)
    assert vectors.norm(dim=1).tolist() == pytest.approx([4.0] * 32)
    directions = make_dictionary().decoder_directions()
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(vectors, directions), torch.ones(32))


def test_live_latents_fired():
    units = torch.zeros(50)
    units[[3, 8, 40]] = 1.0
    assert live_latents(units, 10).tolist() == [3, 8, 40]
    assert set(live_latents(units, 2, seed=1).tolist()) < {3, 8, 40}


def test_contexts_end_where_the_policy_keeps(tokens):
    keep = torch.zeros_like(tokens, dtype=torch.bool)
    keep[0, 3] = keep[1, 3] = keep[2, 6] = True
    for seed in range(4):
        (context,) = random_contexts([rows_of(tokens, keep)], n=1, seed=seed)
        assert context.ids.shape[1] in (4, 7)
        assert torch.equal(context.ids, tokens[2:, :7] if context.ids.shape[1] == 7 else tokens[:1, :4])


def test_as_many_contexts_as_wanted_or_a_refusal(tokens):
    chunks = [rows_of(tokens) for _ in range(4)]
    assert [len(c.ids) for c in random_contexts(chunks, n=8)] == [3, 3, 2]
    with pytest.raises(UserError, match="gives 12 contexts"):
        random_contexts(chunks, n=13)
