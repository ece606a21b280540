"""Matching of directions: by hand, against the exact search, and on dictionaries that are known to be the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from saelab.dictionaries.config import Target
from saelab.dictionaries.dictionary import Dictionary
from saelab.errors import UserError
from saelab.evaluation import matching
from saelab.evaluation.matching import EPSILON, auction, match, nearest
from saelab.evaluation.stability import Stability, stability

SITE = "blocks.0.resid_post"


def units(n: int, d: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def dictionary(make_subject):
    def build(W_dec: torch.Tensor, W_enc: torch.Tensor | None = None, site: str = SITE, **options) -> Dictionary:
        return make_subject(site, W_dec if W_enc is None else W_enc, W_dec, k=1, **options).dictionary

    return build


def test_by_hand(dictionary):
    # Angles of a: 0° and 30°; of b: 20°, 90° and 200°. The nearest of both latents of a is b's 20° (cos 20°, cos 10°).
    # Only one can have it: cos 20° + cos 60° = 1.440 against cos 10° + cos 90° = 0.985, so 0° takes 20°, 30° takes 90°.
    # b's nearest in a: 20° has 30° (cos 10°), 90° has 30° (cos 60°), 200° has 0° (cos 160° < 0).
    def at(*degrees: float) -> torch.Tensor:
        angle = torch.tensor(degrees).deg2rad()
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def cos(degrees: float) -> float:
        return float(np.cos(np.deg2rad(degrees)))

    found = stability(dictionary(at(0, 30) * 3), dictionary(at(20, 90, 200)))
    assert found.mean_max_cosine_ab == pytest.approx((cos(20) + cos(10)) / 2)
    assert found.mean_max_cosine_ba == pytest.approx((cos(10) + cos(60) + cos(160)) / 3)
    assert found.matched_latents == 2
    assert found.matched_cosine == pytest.approx((cos(20) + cos(60)) / 2)
    assert (found.matched_over_07, found.matched_over_09) == (0.5, 0.5)
    assert found.matched_gap == 0
    assert found.encoder_cosine == pytest.approx((cos(20) + cos(60)) / 2)


def test_a_shuffled_copy_is_the_same_dictionary(dictionary):
    W_dec, W_enc = units(24, 16, 0), units(24, 16, 1)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    found = stability(dictionary(W_dec, W_enc), dictionary(W_dec[order] * 5, W_enc[order], scale=0.1))
    shares = found.model_dump(exclude={"matched_latents", "matched_gap"})
    assert shares == pytest.approx(dict.fromkeys(shares, 1.0))


def test_the_other_way_round(dictionary):
    a, b = dictionary(units(9, 16, 0)), dictionary(units(14, 16, 1))
    one, other = stability(a, b), stability(b, a)
    assert one.mean_max_cosine_ab == other.mean_max_cosine_ba
    assert one.mean_max_cosine_ba == other.mean_max_cosine_ab
    assert one.matched_cosine == other.matched_cosine
    assert one.encoder_cosine == other.encoder_cosine


def test_opposite_directions_are_no_partners(dictionary):
    eye = torch.eye(16)[:3]
    found = stability(dictionary(eye), dictionary(-eye))
    # Every latent is orthogonal to two of the others: pairs of cosine 0 are no partners.
    assert (found.matched_cosine, found.encoder_cosine) == (0, None)
    assert found.mean_max_cosine_ab == 0


def test_a_row_of_length_zero_is_near_nothing(dictionary):
    eye = torch.eye(16)[:2]
    found = stability(dictionary(torch.stack([eye[0], torch.zeros(16)])), dictionary(eye))
    assert found.mean_max_cosine_ab == found.matched_cosine == 0.5


def test_transcoders_are_compared_where_they_write(dictionary):
    # Two targets in model units, one behind the other: rows (3, 4 | 0, 0) and (0, 0 | 1, 0) after the scales 1 and 2.
    def transcoder(W_dec: torch.Tensor, W_enc: torch.Tensor) -> Dictionary:
        base = dictionary(torch.zeros(2, 16), W_enc)
        targets = (Target(site="blocks.0.mlp_out", width=2, scale=1), Target(site="blocks.1.mlp_out", width=2, scale=2))
        config = base.config.model_copy(update={"targets": targets, "d_out": 4})
        return replace(base, W_dec=W_dec, b_dec=torch.zeros(4), config=config)

    a = transcoder(torch.tensor([[3.0, 4, 0, 0], [0, 0, 2, 0]]), torch.eye(16)[:2])
    b = transcoder(torch.tensor([[3.0, 0, 8, 0], [0, 0, 2, 0]]), torch.eye(16)[1:3])
    found = stability(a, b)
    # In model units b's first row is (3, 0 | 4, 0): cosine 9/25 with (3, 4 | 0, 0).
    assert found.matched_cosine == pytest.approx((9 / 25 + 1) / 2)
    assert found.encoder_cosine == 0


@pytest.mark.parametrize(
    ("site", "options", "words"),
    [("blocks.1.resid_post", {}, "at different sites"), (SITE, {"model_fingerprint": "0" * 64}, "two models")],
)
def test_what_shares_no_basis_is_refused(dictionary, site: str, options: dict, words: str):
    with pytest.raises(UserError, match=words):
        stability(dictionary(units(4, 16, 0)), dictionary(units(4, 16, 1), site=site, **options))


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 6), st.integers(1, 4))
def test_the_auction_is_nearly_the_best_matching(seed: int, n: int, more: int, d: int):
    rows, columns = units(n, d, seed), units(n + more, d, seed + 1)
    near = nearest(rows, columns)
    exact = match(rows, columns, near)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_EXACT", 0)
        found = match(rows, columns, near)
    partners = found.column[found.column >= 0]
    assert len(partners.unique()) == len(partners)
    # Every column is a candidate here, so what is missing is the bidding's: 2 epsilon a row.
    assert exact.cosine.mean() - 2 * EPSILON <= found.cosine.mean() <= exact.cosine.mean() + 1e-6
    assert found.cosine.mean() + found.gap >= exact.cosine.mean() - 1e-6


def test_an_auction_by_hand():
    # Row 0 offers 0.9 - 0.8 for column 0, row 1 all of its 0.7, having nothing else. Outbid, row 0 offers for column 1
    # what it gains there over column 0 at its new price: 0.8 - (0.9 - 0.7).
    column, price = auction(np.array([[0.9, 0.8], [0.7, 0.0]]), np.array([[0, 1], [0, 1]]), 2)
    assert column.tolist() == [1, 0]
    assert price.tolist() == pytest.approx([0.7, 0.6], abs=4 * EPSILON)


def test_few_candidates_show_in_the_gap(monkeypatch):
    # Three rows nearest to one column; with a single candidate each, two stay alone, and the bound tells.
    rows = normalize(torch.tensor([[1.0, 0.1], [1, 0.2], [1, 0.3]]), dim=1)
    columns = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    monkeypatch.setattr(matching, "_EXACT", 0)
    found = match(rows, columns, nearest(rows, columns, candidates=1))
    monkeypatch.setattr(matching, "_EXACT", 9)
    best = match(rows, columns, nearest(rows, columns)).cosine.mean()
    assert found.cosine.mean() < best <= found.cosine.mean() + found.gap


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_in_tiles_as_in_one_piece(seed: int):
    rows, columns = units(20, 6, seed), units(30, 6, seed + 1)
    whole = nearest(rows, columns, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_TILE_ELEMENTS", 100)
        tiles = nearest(rows, columns, 5)
    for one, other in zip(whole, tiles, strict=True):
        torch.testing.assert_close(one, other)


def test_directions_that_are_all_alike_come_to_an_end(monkeypatch):
    monkeypatch.setattr(matching, "_EXACT", 0)
    rows = units(1, 8, 0).expand(200, 8)
    found = match(rows, rows, nearest(rows, rows, 50))
    assert found.cosine.sum() >= 49  # fifty candidates, the same for all


def test_every_number_is_defined_in_the_documentation(repository):
    text = (repository / "docs" / "metrics.md").read_text()
    for name in Stability.model_fields:
        assert f"`{name}`" in text
