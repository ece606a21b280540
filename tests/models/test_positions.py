"""Interventions at some positions: what they see, with and without the cache, and what they leave alone."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.errors import UserError
from saelab.models import Intervention, Positions, Site

PLACES = ["0:", "2:", "2", "5", "6:", "-1:", "-1", "-3:", "-3"]


@pytest.mark.parametrize("text", [*PLACES, " 7 "])
def test_what_is_read_is_what_is_written(text):
    assert str(Positions.parse(text)) == text.strip()


def test_all_is_everywhere():
    assert Positions.parse("all") is None


@pytest.mark.parametrize("text", ["", ":", "last", "1:3", ":4", "1,2", "--1", "1.0"])
def test_what_is_no_position_is_refused(text):
    with pytest.raises(UserError, match="can't be read"):
        Positions.parse(text)


def test_a_position_before_the_prompt_is_refused(gpt2):
    site = Site(0, "resid_post")
    with gpt2.model.intervene(Intervention(site, lambda x: x + 1, positions=Positions(-6))):
        with pytest.raises(UserError, match="position -6 lies before the start of a prompt of 5 tokens"):
            gpt2.model.logits(gpt2.tokens(length=5))
        gpt2.model.logits(gpt2.tokens(length=6))


@given(st.integers(0, 12), st.booleans(), st.integers(0, 8), st.integers(1, 6), st.integers(1, 12))
def test_within_is_a_cut_of_the_whole_row(first, alone, offset, length, prompt):
    row = list(range(30))
    wanted = {first} if alone else set(row[first:])
    part = row[offset : offset + length]
    assert part[Positions(first, alone).within(offset, length, prompt)] == [at for at in part if at in wanted]


def test_it_sees_its_positions_alone(gpt2):
    seen = []

    def note(x):
        seen.append(x.clone())
        return x

    tokens, site = gpt2.tokens(rows=2, length=7), Site(1, "resid_post")
    whole = gpt2.model.activations(tokens, [site])[site]
    for text, part in (("3:", slice(3, 7)), ("3", slice(3, 4)), ("-2:", slice(5, 7)), ("-2", slice(5, 6))):
        with gpt2.model.intervene(Intervention(site, note, positions=Positions.parse(text))):
            gpt2.model.logits(tokens)
        assert torch.equal(seen.pop(), whole[:, part])
    with gpt2.model.intervene(Intervention(site, note, positions=Positions(7))):
        gpt2.model.logits(tokens)
    assert seen == []  # there is no position 7


def test_nothing_before_the_position_changes_a_bit(family):
    model, tokens = family.model, family.tokens(rows=2, length=8)
    for kind in family.taps(family.plain, 1):
        there = partial(Intervention, Site(1, kind), positions=Positions(4, alone=True))
        with model.intervene(there(lambda x: x)):  # inside attention, being hooked alone changes the rounding
            clean = model.logits(tokens)
        with model.intervene(there(lambda x: x + 1)):
            changed = model.logits(tokens)
        assert torch.equal(changed[:, :4], clean[:, :4])
        assert not torch.equal(changed[:, 4:], clean[:, 4:])


@pytest.mark.parametrize("text", PLACES)
def test_generation_agrees_with_and_without_the_cache(family, text):
    # Without the promise each new token costs a pass over the whole row, whose prompt is still the one it was given.
    model, prompt, site = family.model, family.tokens(rows=2, length=4), Site(0, "resid_post")
    edit = 8 * torch.randn(model.width(site), generator=torch.Generator().manual_seed(1))
    there = partial(Intervention, site, lambda x: x + edit, positions=Positions.parse(text))
    with model.intervene(there(per_position=True)):
        cached = model.generate(prompt, 5, temperature=0)
    with model.intervene(there(per_position=False)):
        assert torch.equal(model.generate(prompt, 5, temperature=0), cached)

    # By hand: whole rows, the edit put in at absolute positions.
    start = 4 + int(text.strip(":")) if text.startswith("-") else int(text.strip(":"))
    tokens = prompt
    for _ in range(5):
        stop = start + 1 if not text.endswith(":") else tokens.shape[1]

        def added(x, stop=stop):
            return torch.cat([x[:, :start], x[:, start:stop] + edit, x[:, max(start, stop) :]], 1)

        with model.intervene(Intervention(site, added)):
            tokens = torch.cat([tokens, model.logits(tokens)[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(tokens, cached)


def test_a_cached_prefix_counts(gpt2):
    tokens, site = gpt2.tokens(rows=2, length=8), Site(0, "resid_post")
    there = Intervention(site, lambda x: x + 1, positions=Positions(5, alone=True))
    rest, last = gpt2.model.from_position(tokens, 3), gpt2.model.at_the_end(tokens[:, :6])
    with gpt2.model.intervene(there):
        whole = gpt2.model.logits(tokens)
        torch.testing.assert_close(rest()[0], whole[:, 3:], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(last(2), whole[:, 5:6].expand(-1, 2, -1), rtol=1e-4, atol=1e-5)


def test_a_stream_is_generation_token_by_token(gpt2):
    prompt = gpt2.tokens(rows=2, length=4)
    whole = gpt2.model.generate(prompt, 6, seed=3)
    stream = gpt2.model.stream(prompt, 6, seed=3)
    assert torch.equal(torch.stack([next(stream) for _ in range(3)], 1), whole[:, 4:7])
    stream.close()
    with pytest.raises(UserError, match="max_new_tokens is 0"):
        gpt2.model.stream(prompt, 0)  # before the first token is asked for
