"""The next token's answer to strengths, against the linear model and numbers worked out by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from saelab.steering.edits import LatentEdit
from saelab.steering.response import divergence, next_logits, shift, strength_grid
from saelab.steering.steered import steered


def test_adding_a_direction_moves_the_logits_in_proportion(model, make_dictionary, tokens):
    """The model is linear in its last residual stream, so twice the strength is twice the change."""
    dictionary = make_dictionary()
    variants = [[], {7: 1.0}, {7: 2.0}]
    clean, once, twice = next_logits(model, dictionary, tokens[0], variants, method="direction")
    assert_close(clean, model.logits(tokens[:1])[0, -1])
    direct = model.direct_logits(dictionary.decoder_directions()[7:8])[0] / 1e4
    assert_close(once - clean, direct, atol=1e-4, rtol=1e-3)
    assert_close(twice - clean, 2 * direct, atol=1e-4, rtol=1e-3)


def test_units_and_positions_count(model, make_dictionary, tokens):
    dictionary, prompt = make_dictionary(), tokens[0]
    add = [[LatentEdit(latent=7, strength=1.0)]]
    plain = next_logits(model, dictionary, prompt, [[], {7: 3.0}], method="direction")
    assert_close(
        next_logits(model, dictionary, prompt, add, method="direction", units=torch.full((32,), 3.0))[0], plain[1]
    )
    # Behind the last layer only the last position reaches the next token.
    last = next_logits(model, dictionary, prompt, [{7: 3.0}], method="direction", positions="-1:")[0]
    assert_close(last, plain[1])
    assert_close(next_logits(model, dictionary, prompt, [{7: 3.0}], method="direction", positions="2")[0], plain[0])


def test_divergence_by_hand():
    before = torch.tensor([0.5, 0.5]).log()
    after = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log() + 3.0  # a constant changes nothing
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert divergence(before, after).tolist() == pytest.approx([0.0, expected], abs=1e-6)


def test_shift_by_hand():
    assert shift(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[5.0, 3.0, 3.0]])).tolist() == [
        pytest.approx([4 - 5 / 3, 1 - 5 / 3, -5 / 3])
    ]


def test_the_grid_holds_what_was_asked_for_and_its_surroundings():
    assert strength_grid([1.0, 2.0], steps=5) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    both = strength_grid([-2.0], steps=2)
    assert both == [-2.5, -2.0, 0.0, 2.5]
    assert strength_grid([0.0], steps=1) == [0.0, 1.0]


@pytest.mark.parametrize("positions", ["all", "3:", "4", "-1:", "30:"])
@pytest.mark.parametrize(("method", "mode"), [("difference", "add"), ("difference", "clamp"), ("direction", "add")])
def test_variants_side_by_side_answer_as_each_does_alone(
    model, make_dictionary, tokens, monkeypatch, positions, method, mode
):
    """At a site in the middle, so that later positions read what was edited at earlier ones."""
    dictionary, prompt = make_dictionary("blocks.0.resid_post"), tokens[0]
    units = torch.rand(32, generator=torch.Generator().manual_seed(1)) + 1
    variants = [
        [LatentEdit(latent=latent, mode=mode, strength=strength) for latent in latents]
        for strength, latents in ((0.5, [7]), (3.0, [9, 7]), (2.0, [1]))
    ]
    given = {"method": method, "units": units, "positions": positions}
    alone = []
    for edits in [[], *variants]:
        with steered(model, dictionary, edits, **given):
            alone.append(model.logits(prompt[None])[0, -1])
    assert_close(next_logits(model, dictionary, prompt, [[], *variants], **given), torch.stack(alone))
    monkeypatch.setattr("saelab.steering.response.at_once", lambda *_: 3)  # a remainder of one
    assert_close(next_logits(model, dictionary, prompt, [[], *variants], **given), torch.stack(alone))
