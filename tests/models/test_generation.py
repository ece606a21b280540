"""Generation: greedy as Hugging Face's, seeded, exact under interventions with and without the cache."""

import pytest
import torch
from torch.testing import assert_close

from saelab.errors import UserError
from saelab.models import Intervention, Site, SiteKind
from saelab.models.generation import sample


def test_greedy_equals_hugging_faces_generate(family):
    prompt = family.tokens(rows=2, length=5)
    expected = family.plain.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=9,
        do_sample=False,
        pad_token_id=0,
    )
    assert torch.equal(family.model.generate(prompt, 9, temperature=0), expected)


def test_one_prompt_is_a_batch_of_one(gpt2):
    prompt = gpt2.tokens(rows=1, length=5)
    found = gpt2.model.generate(prompt[0], 3, seed=1)
    assert found.shape == (1, 8)
    assert torch.equal(found[:, :5], prompt)
    assert torch.equal(found, gpt2.model.generate(prompt, 3, seed=1))


def test_the_seed_decides(gpt2):
    prompt = gpt2.tokens(rows=1, length=4)
    first = gpt2.model.generate(prompt, 20, seed=1)
    torch.manual_seed(99)  # the global generator has no say
    assert torch.equal(gpt2.model.generate(prompt, 20, seed=1), first)
    assert not torch.equal(gpt2.model.generate(prompt, 20, seed=2), first)


def test_the_cache_is_exact_for_interventions_that_treat_positions_alike(family):
    model, prompt = family.model, family.tokens(rows=2, length=4)
    for kind in family.taps(family.plain, 1):
        site = Site(1, kind)
        edit = 3 * torch.randn(model.width(site), generator=torch.Generator().manual_seed(1))
        with model.intervene(Intervention(site, lambda x, edit=edit: x + edit, per_position=True)):
            cached = model.generate(prompt, 4, temperature=0)
        with model.intervene(Intervention(site, lambda x, edit=edit: x + edit)):
            assert torch.equal(model.generate(prompt, 4, temperature=0), cached)
        if kind == "resid_post":
            assert not torch.equal(model.generate(prompt, 4, temperature=0), cached)


def test_an_intervention_sees_whole_rows_unless_it_promises_not_to_care(gpt2):
    lengths = []

    def note(x):
        lengths.append(x.shape[1])
        return x

    for per_position in (False, True):
        with gpt2.model.intervene(Intervention(Site(0, "resid_pre"), note, per_position)):
            gpt2.model.generate(gpt2.tokens(rows=1, length=4), 3)
    assert lengths == [4, 5, 6, 4, 1, 1]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"max_new_tokens": 44}, "a prompt of 5 tokens and max_new_tokens 44 exceed the model's context of 48"),
    ],
)
def test_settings_without_meaning(gpt2, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        gpt2.model.generate(gpt2.tokens(length=5), **({"max_new_tokens": 2} | settings))


def shares(temperature=1.0, top_k=None, top_p=None):
    """How often each of three tokens with probabilities 1/2, 3/8, 1/8 is drawn."""
    logits = torch.tensor([0.5, 0.375, 0.125]).log().expand(20_000, 3)
    drawn = sample(logits, temperature, top_k, top_p, torch.Generator().manual_seed(0))
    return drawn.bincount(minlength=3) / 20_000


def test_samples_follow_the_probabilities():
    assert_close(shares(), torch.tensor([0.5, 0.375, 0.125]), atol=0.015, rtol=0)


def test_temperature_sharpens():
    # at 1/2 the probabilities are squared: 16/64, 9/64, 1/64 of 26/64
    assert_close(shares(temperature=0.5), torch.tensor([16, 9, 1]) / 26, atol=0.015, rtol=0)


def test_top_k_keeps_the_likeliest():
    assert_close(shares(top_k=2), torch.tensor([4 / 7, 3 / 7, 0]), atol=0.015, rtol=0)
    assert_close(shares(top_k=1), torch.tensor([1.0, 0, 0]))


def test_top_p_keeps_the_fewest_that_reach_p():
    assert_close(shares(top_p=0.5), torch.tensor([1.0, 0, 0]))
    assert_close(shares(top_p=0.6), torch.tensor([4 / 7, 3 / 7, 0]), atol=0.015, rtol=0)
    assert shares(top_p=0.9)[2] > 0.1


@pytest.mark.parametrize("length", [1, 2, 9])
def test_edits_of_the_last_position_are_those_of_whole_rows(family, length: int):
    # Three rows, two edits each: row-major, as whole forward passes that edit position -1 alone give them.
    model, tokens = family.model, family.tokens(rows=3, length=length)
    site = Site(0, "resid_post")
    edits = 3 * torch.randn(2, model.width(site), generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(3, 2, model.d_vocab)
    for number, edit in enumerate(edits):

        def at_the_end(x, edit=edit):
            return torch.cat([x[:, :-1], x[:, -1:] + edit], dim=1)

        with model.intervene(Intervention(site, at_the_end)):
            expected[:, number] = model.logits(tokens)[:, -1]
    last_logits = model.at_the_end(tokens)
    assert torch.allclose(last_logits(1)[:, 0], model.logits(tokens)[:, -1], rtol=1e-4, atol=1e-5)
    with model.intervene(Intervention(site, lambda x: x + edits.repeat(3, 1)[:, None])):
        torch.testing.assert_close(last_logits(2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["z", "q", "resid_post"])
@pytest.mark.parametrize("start", [0, 4, 8])
def test_what_follows_a_kept_beginning_is_that_of_whole_rows(family, kind: SiteKind, start: int):
    # An edit of one head at one position behind the beginning, and another site read: as one whole pass has them.
    model, tokens = family.model, family.tokens(rows=3, length=9)
    site, read = Site(0, kind, None if kind == "resid_post" else 0), Site(1, "v")
    value = torch.randn(model.width(site), generator=torch.Generator().manual_seed(1))

    def replacing(position: int) -> Intervention:
        def replace(x):
            x = x.clone()
            x[:, position] = value
            return x

        return Intervention(site, replace)

    rest = model.from_position(tokens, start)
    for position in (start, 8):
        with model.intervene(replacing(position)):
            expected, expected_read = model.logits(tokens), model.activations(tokens, [read])[read]
        with model.intervene(replacing(position - start)):
            logits, found = rest([read])
        torch.testing.assert_close(logits, expected[:, start:], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[read], expected_read[:, start:], rtol=1e-4, atol=1e-5)
    assert torch.allclose(rest([])[0], model.logits(tokens)[:, start:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["z", "k", "resid_post"])
def test_one_position_of_some_rows_again_is_that_of_whole_rows(family, kind: SiteKind):
    # Rows by name, one of them twice with two edits, at the first position, behind a sliding window, and at the end.
    model, tokens = family.model, family.tokens(rows=3, length=12)
    site, rows = Site(0, kind, None if kind == "resid_post" else 0), torch.tensor([2, 0, 2])
    edits = 3 * torch.randn(3, 1, model.width(site), generator=torch.Generator().manual_seed(1))
    logits_at = model.at_positions(tokens)
    for position in (0, 8, 11):

        def there(x, position=position):
            return torch.cat([x[:, :position], x[:, position : position + 1] + edits, x[:, position + 1 :]], dim=1)

        with model.intervene(Intervention(site, there)):
            expected = model.logits(tokens[rows])[:, position]
        with model.intervene(Intervention(site, lambda x: x + edits)):
            torch.testing.assert_close(logits_at(position, rows), expected, rtol=1e-4, atol=1e-5)
        clean = model.logits(tokens[rows])[:, position]
        torch.testing.assert_close(logits_at(position, rows), clean, rtol=1e-4, atol=1e-5)
