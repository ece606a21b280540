"""Curves over L0, read off between their knots."""

import math

import pytest

from saelab.evaluation.compare.curves import Curve, Knot, matches


def curve(name: str, *l0s: float) -> Curve:
    return Curve.of(name, [Knot(f"{name}{l0:g}", l0) for l0 in l0s])


def test_halfway_in_log_l0_is_half_of_each() -> None:
    reading = curve("a", 32, 8).at(16)
    assert reading is not None
    assert (reading.left.name, reading.right.name) == ("a8", "a32")
    assert reading.share == pytest.approx(0.5)


def test_the_share_by_hand() -> None:
    reading = curve("a", 10, 20).at(12)
    assert reading is not None
    assert reading.share == pytest.approx(math.log(1.2) / math.log(2))


def test_at_a_knot_it_is_the_knot() -> None:
    for l0 in (8, 16, 32):
        reading = curve("a", 8, 16, 32).at(l0)
        assert reading is not None
        assert {0.0: reading.left, 1.0: reading.right}[reading.share].name == f"a{l0}"


def test_nothing_is_extrapolated() -> None:
    assert curve("a", 8, 16).at(17) is None
    assert curve("a", 8, 16).at(7.5) is None
    assert curve("a", 8).at(16) is None


def test_an_end_within_five_percent_stands_for_it() -> None:
    reading = curve("a", 8, 16).at(16.5)
    assert reading is not None
    assert (reading.left.name, reading.share, reading.l0) == ("a16", 0.0, 16)


def test_curves_meet_once_at_every_l0() -> None:
    ours, baseline = curve("a", 9, 20, 70), curve("b", 8, 16, 32)
    met = [(match.ours.l0, match.theirs.l0) for match in matches(ours, baseline)]
    # b's 16 and 32 on a; b's 8 lies outside. Of a's knots 9 and 20 on b, 70 lies outside.
    assert met == [(16, 16), (32, 32), (9, 9), (20, 20)]
    near = [match.theirs.left.name for match in matches(curve("a", 8.1, 15.9, 31), baseline)]
    assert near == ["b8", "b16", "b32"]


def test_a_lone_dictionary_meets_a_curve_that_runs_past_it() -> None:
    (match,) = matches(curve("a", 12), curve("b", 8, 16))
    assert (match.ours.left.name, match.theirs.left.name, match.theirs.right.name) == ("a12", "b8", "b16")
    assert list(matches(curve("a", 40), curve("b", 8, 16))) == []


def test_two_knots_at_one_l0_are_one_place() -> None:
    reading = Curve.of("a", [Knot("x", 8), Knot("y", 8)]).at(8)
    assert reading is not None
    assert reading.share == 0
