"""Edits of codes against dense arithmetic and numbers worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from saelab.errors import UserError
from saelab.steering.config import LatentEdit
from saelab.steering.edits import add_vector, as_edits, by_difference, by_direction, columns


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        # Codes 0, 1 and 3; one unit is 2.
        (LatentEdit(latent=0, mode="add", strength=1.5), [3.0, 4.0, 6.0]),
        (LatentEdit(latent=0, mode="add", strength=-1.0), [0.0, 0.0, 1.0]),  # no code falls below zero
        (LatentEdit(latent=0, mode="clamp", strength=2.0), [4.0, 4.0, 4.0]),
        (LatentEdit(latent=0, mode="scale", strength=0.5), [0.0, 0.5, 1.5]),  # a factor has no unit
        (LatentEdit(latent=0, mode="zero"), [0.0, 0.0, 0.0]),
    ],
)
def test_modes_by_hand(edit: LatentEdit, expected: list[float]):
    assert edit.apply(torch.tensor([0.0, 1.0, 3.0]), unit=2.0).tolist() == expected


@pytest.mark.parametrize(
    "edit",
    [
        {"latent": 0},
        {"latent": 0, "mode": "zero", "strength": 1.0},
        {"latent": 0, "mode": "scale", "strength": -1.0},
        {"latent": 0, "mode": "clamp", "strength": -1.0},
        {"latent": -1, "strength": 1.0},
        {"latent": 0, "strength": float("nan")},
    ],
)
def test_edits_that_mean_nothing_are_refused(edit: dict):
    with pytest.raises(ValidationError):
        LatentEdit.model_validate(edit)


def test_the_short_form_adds():
    assert as_edits({3: 4.0}, d_sae=8) == [LatentEdit(latent=3, mode="add", strength=4.0)]


def test_a_latent_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="latents 0 to 7"):
        as_edits({8: 1.0}, d_sae=8)


def test_a_latent_edited_twice_is_refused():
    edits = [LatentEdit(latent=1, strength=1.0), LatentEdit(latent=1, mode="zero")]
    with pytest.raises(UserError, match="edited twice"):
        as_edits(edits, d_sae=8)


def test_columns_are_those_of_the_dense_codes(make_dictionary):
    dictionary = make_dictionary()
    codes = dictionary.encode(torch.randn(20, 16, generator=torch.Generator().manual_seed(0)))
    latents = torch.tensor([9, 0, 31])
    assert torch.equal(columns(codes, latents), codes.to_dense()[:, latents])


def test_an_empty_edit_is_exactly_a_no_op(make_dictionary):
    x = torch.randn(4, 5, 16)
    assert torch.equal(by_difference(make_dictionary(), [])(x), x)
    assert torch.equal(by_direction(make_dictionary(), {})(x), x)


def test_an_edit_that_changes_no_code_is_exactly_a_no_op(make_dictionary):
    x = torch.randn(4, 5, 16)
    assert torch.equal(by_difference(make_dictionary(), [LatentEdit(latent=3, mode="scale", strength=1.0)])(x), x)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_difference_is_that_of_two_decodings(make_dictionary, data):
    dictionary = make_dictionary()
    latents = data.draw(st.lists(st.integers(0, 31), min_size=1, max_size=4, unique=True))
    edits = []
    for latent in latents:
        mode = data.draw(st.sampled_from(["add", "scale", "clamp", "zero"]))
        strength = None if mode == "zero" else data.draw(st.floats(0 if mode != "add" else -3, 3))
        edits.append(LatentEdit(latent=latent, mode=mode, strength=strength))
    units = torch.linspace(0.5, 2, 32)
    x = torch.randn(7, 16, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))) * 4

    dense = dictionary.encode(x).to_dense()
    edited = dense.clone()
    for edit in edits:
        edited[:, edit.latent] = edit.apply(dense[:, edit.latent], float(units[edit.latent]))
    decoded = (edited @ dictionary.W_dec - dense @ dictionary.W_dec) / dictionary.config.scale
    torch.testing.assert_close(by_difference(dictionary, edits, units)(x), x + decoded, rtol=1e-5, atol=1e-4)


def test_adding_by_difference_is_adding_the_direction(make_dictionary):
    # A positive strength adds the same whether the latent fires or not.
    dictionary, x = make_dictionary(), torch.randn(7, 16)
    torch.testing.assert_close(by_difference(dictionary, {5: 2.0})(x), by_direction(dictionary, {5: 2.0})(x))


def test_a_negative_strength_takes_away_at_most_what_is_there(make_dictionary):
    dictionary = make_dictionary()
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    off = by_difference(dictionary, [LatentEdit(latent=5, mode="zero")])(x)
    assert torch.equal(by_difference(dictionary, {5: -100.0})(x), off)
    fires = dictionary.encode(x).to_dense()[:, 5] > 0
    assert torch.equal((off != x).any(1), fires)


def test_a_direction_pushes_both_ways(make_dictionary):
    dictionary, x = make_dictionary(), torch.randn(7, 16)
    there = by_direction(dictionary, {5: 2.0})(x)
    torch.testing.assert_close(by_direction(dictionary, {5: -2.0})(there), x)


def test_units_multiply_strengths(make_dictionary):
    dictionary, x = make_dictionary(), torch.randn(7, 16)
    units = torch.full((32,), 3.0)
    for change in (by_difference, by_direction):
        torch.testing.assert_close(change(dictionary, {5: 2.0}, units)(x), change(dictionary, {5: 6.0})(x))


def test_a_direction_can_only_be_added(make_dictionary):
    with pytest.raises(UserError, match="one can only add"):
        by_direction(make_dictionary(), [LatentEdit(latent=1, mode="zero")])


def test_any_vector_can_be_added():
    x = torch.randn(2, 3, 16, dtype=torch.bfloat16)
    assert torch.equal(add_vector(torch.ones(16))(x), x + 1)
