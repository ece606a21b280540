"""Steering a model: algebra on a linear one, generation, and the largest activations that strengths count."""

import pytest
import torch

from saelab.corpora import Cursor, Reason, TokenRows
from saelab.errors import UserError
from saelab.models import Intervention, Site
from saelab.steering.config import LatentEdit
from saelab.steering.edits import by_difference
from saelab.steering.steered import Sampling, continuing, largest_activations, side_by_side, steered

LAST, FIRST = "blocks.1.resid_post", "blocks.0.resid_post"


@pytest.mark.parametrize("method", ["difference", "direction"])
def test_the_logits_change_as_algebra_says(model, tokens, make_dictionary, method):
    # logits = (x - mean(x)) W_U here, so adding 3 · d changes them by 3 · (d - mean(d)) W_U; direct_logits includes the
    # norm's gain of 10^4, which its eps of 10^8 divides away again.
    dictionary = make_dictionary(LAST)
    before = model.logits(tokens)
    with steered(model, dictionary, {7: 3.0}, method=method):
        change = model.logits(tokens) - before
    expected = 3.0 * model.direct_logits(dictionary.decoder_directions()[7:8])[0] / 1e4
    torch.testing.assert_close(change, expected.expand_as(change), rtol=1e-4, atol=1e-4)


def test_several_latents_add_up(model, tokens, make_dictionary):
    dictionary = make_dictionary(LAST)
    before = model.logits(tokens)
    changes = []
    for edits in ({7: 3.0}, {11: -2.0}, {7: 3.0, 11: -2.0}):
        with steered(model, dictionary, edits, method="direction"):
            changes.append(model.logits(tokens) - before)
    torch.testing.assert_close(changes[0] + changes[1], changes[2], rtol=1e-4, atol=1e-4)


def test_an_empty_edit_is_exactly_a_no_op(model, tokens, make_dictionary):
    before = model.logits(tokens)
    with steered(model, make_dictionary(FIRST), {}):
        assert torch.equal(model.logits(tokens), before)


def test_the_edit_ends_with_the_block(model, tokens, make_dictionary):
    before = model.logits(tokens)
    with pytest.raises(ZeroDivisionError), steered(model, make_dictionary(FIRST), {7: 3.0}):
        raise ZeroDivisionError
    assert torch.equal(model.logits(tokens), before)


def test_a_latent_set_to_zero_fires_no_more(model, tokens, make_dictionary):
    # All latents may fire (k = d_sae) and rows are orthogonal, so that removing one touches no other.
    dictionary = make_dictionary(FIRST, k=16, d_sae=16)
    rows = torch.linalg.qr(dictionary.W_dec).Q
    dictionary.W_enc.copy_(rows)
    dictionary.W_dec.copy_(rows)
    site = Site.parse(FIRST)

    def codes():
        return dictionary.encode(model.activations(tokens, [site])[site])

    latent = int(codes().fired().argmax())
    before = codes().to_dense()[..., latent].max()
    with steered(model, dictionary, [LatentEdit(latent=latent, mode="zero")]):
        assert codes().to_dense()[..., latent].max() < 1e-4 * before


def test_side_by_side_parts_only_where_the_edit_does(model, make_dictionary):
    prompt = torch.tensor([0, 5, 9])
    dictionary = make_dictionary(LAST)
    clean, same, pushed = side_by_side(
        model, dictionary, prompt, [(None, {}), (0.0, {7: 0.0}), (50.0, {7: 50.0})], sampling=Sampling(max_new_tokens=8)
    )
    assert clean.ids.tolist() == same.ids.tolist()
    assert len(pushed.ids) == 8
    promoted = int(model.direct_logits(dictionary.decoder_directions()[7:8])[0].argmax())
    assert pushed.ids.tolist() == [promoted] * 8  # so strong a push leaves one token


def test_generation_under_edits_is_that_of_the_steered_logits(model, make_dictionary):
    # Greedy generation with its key-value cache must agree with whole forward passes.
    prompt, dictionary = torch.tensor([0, 5, 9]), make_dictionary(FIRST)
    (text,) = side_by_side(model, dictionary, prompt, [(2.0, {7: 2.0})], sampling=Sampling(6, temperature=0.0))
    ids = prompt.tolist()
    with steered(model, dictionary, {7: 2.0}):
        for _ in range(6):
            ids.append(int(model.logits(torch.tensor([ids]))[0, -1].argmax()))
    assert text.ids.tolist() == ids[3:]


def test_largest_activations_leave_excluded_positions_out(model, tokens, make_dictionary):
    dictionary = make_dictionary(FIRST)
    excluded = torch.zeros_like(tokens, dtype=torch.uint8)
    excluded[:, 0] = Reason.FIRST
    chunks = [
        TokenRows(tokens[i : i + 1].int(), tokens[:1], tokens[:1], excluded[i : i + 1], Cursor(), Cursor())
        for i in range(3)
    ]
    site = Site.parse(FIRST)
    codes = dictionary.encode(model.activations(tokens, [site])[site]).to_dense()
    expected = codes[:, 1:].flatten(0, 1).max(0).values
    torch.testing.assert_close(largest_activations(model, dictionary, chunks), expected)


def test_a_dictionary_of_another_model_is_refused(model, make_dictionary):
    dictionary = make_dictionary("blocks.5.resid_post")
    with pytest.raises(UserError, match="isn't in model"), steered(model, dictionary, {7: 1.0}):
        pass


@pytest.mark.parametrize("method", ["difference", "direction"])
@pytest.mark.parametrize("positions", ["0:", "3:", "3", "-1:", "-4", "9"])
def test_only_the_positions_asked_for_change(model, tokens, make_dictionary, method, positions):
    # At the last site an activation acts on its own position's logits alone; the change is the algebra of above.
    dictionary = make_dictionary(LAST)
    before = model.logits(tokens)
    with steered(model, dictionary, {7: 3.0}, method=method, positions=positions):
        after = model.logits(tokens)
    first = int(positions.strip(":")) % tokens.shape[1]
    there = slice(first, None if positions.endswith(":") else first + 1)
    expected = torch.zeros_like(before)
    expected[:, there] = 3.0 * model.direct_logits(dictionary.decoder_directions()[7:8])[0] / 1e4
    torch.testing.assert_close(after - before, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(after[:, :first], before[:, :first])


def test_an_early_edit_is_felt_later_and_never_before(model, tokens, make_dictionary):
    before = model.logits(tokens)
    with steered(model, make_dictionary(FIRST), {7: 30.0}, positions="4"):
        after = model.logits(tokens)
    assert torch.equal(after[:, :4], before[:, :4])
    assert (after[:, 4:] != before[:, 4:]).any(-1).all()


@pytest.mark.parametrize("edits", [{}, {7: 0.0}, [LatentEdit(latent=7, mode="scale", strength=1.0)]])
@pytest.mark.parametrize("positions", ["all", "2:", "-1"])
def test_edits_without_effect_are_exactly_no_ops(model, tokens, make_dictionary, edits, positions):
    before = model.logits(tokens)
    with steered(model, make_dictionary(FIRST), edits, positions=positions):
        assert torch.equal(model.logits(tokens), before)


@pytest.mark.parametrize("positions", ["1:", "2", "-1:", "-2", "5", "4:"])
def test_positions_of_a_generation_count_from_its_prompt(model, make_dictionary, positions):
    # With the key-value cache and a batch of prompts, against whole passes in which the same positions are edited.
    dictionary, site = make_dictionary(FIRST), Site.parse(FIRST)
    prompts = torch.tensor([[0, 5, 9], [3, 8, 1]])
    with steered(model, dictionary, {7: 6.0}, positions=positions):
        generated = model.generate(prompts, 6, temperature=0)
    first = int(positions.strip(":"))
    first += 3 if first < 0 else 0
    change, ids = by_difference(dictionary, {7: 6.0}), prompts
    for _ in range(6):
        stop = ids.shape[1] if positions.endswith(":") else first + 1

        def edited(x, stop=stop):
            return torch.cat([x[:, :first], change(x[:, first:stop]), x[:, max(first, stop) :]], dim=1)

        with model.intervene(Intervention(site, edited)):
            ids = torch.cat([ids, model.logits(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generated, ids)


def test_a_continuation_can_be_stopped_and_leaves_nothing_behind(model, tokens, make_dictionary):
    dictionary, before = make_dictionary(FIRST), model.logits(tokens)
    whole = side_by_side(model, dictionary, tokens[0, :3], [(9.0, {7: 9.0})], sampling=Sampling(8, seed=1))[0]
    drawn = continuing(model, dictionary, tokens[0, :3], {7: 9.0}, sampling=Sampling(8, seed=1))
    some = [next(drawn), next(drawn)]
    assert torch.equal(model.logits(tokens), before)  # while it waits for the next token to be asked for
    assert [*some, *drawn] == whole.ids.tolist()
    with pytest.raises(UserError, match="can't be read"):
        continuing(model, dictionary, tokens[0, :3], {7: 9.0}, positions="end")
