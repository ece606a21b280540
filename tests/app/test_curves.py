"""The small drawing of curves: places of numbers by hand, and nothing that can't be drawn."""

from __future__ import annotations

import math
import re
from urllib.parse import unquote

import pytest

from app.curves import Axis, curves, round_steps


def paths(drawn: str, width: str) -> list[str]:
    return re.findall(rf'stroke-width="{width}"[^>]* d="([^"]*)"', unquote(drawn))


@pytest.mark.parametrize(
    ("low", "high", "n", "ticks"),
    [
        (0, 5, 5, [0, 1, 2, 3, 4, 5]),
        (0, 0.9, 4, [0, 0.5]),
        (-2.5, 2.5, 5, [-2, -1, 0, 1, 2]),
        (0, 130, 4, [0, 50, 100]),
        (0, 1e-7, 4, [0, 5e-8, 1e-7]),
    ],
)
def test_ticks_are_round_and_hold_0(low: float, high: float, n: int, ticks: list[float]) -> None:
    assert round_steps(low, high, n) == pytest.approx(ticks)


def test_an_axis_holds_0_and_all_values() -> None:
    axis = Axis.around("KL (nats)", [2.0, 5.0], 5)
    assert (axis.low, axis.high) == (-0.2, 5.2)
    assert axis.share(2.5) == pytest.approx(50)
    assert Axis.around("y", [-1.0, -3.0], 3).low == -3.12
    assert Axis.around("y", [-1.0], 3).high > 0
    assert Axis.around("y", [], 4).ticks == Axis.around("y", [0.0, 0.0], 4).ticks


def test_points_lie_where_they_should() -> None:
    drawn = curves([0.0, 1.0, 2.0], {"a": [0.0, 1.0, 4.0]}, "strength", "KL (nats)", [1.0])
    (path,) = paths(drawn, "2")
    places = [tuple(float(number) for number in point.split()) for point in path[1:].split("L")]
    # The axes go 4 % beyond the values: from -0.08 to 2.08, and from -0.16 to 4.16.
    assert places == [(3.7, 96.3), (50, 73.15), (96.3, 3.7)]
    assert 'd="M50.00 0.00L50.00 100.00" stroke-dasharray' in unquote(drawn)
    assert re.findall(r'data-tip="([^"]*)"', drawn) == [
        f"strength {x}\na {y:+.3f}" for x, y in ((0, 0), (1, 1), (2, 4))
    ]


def test_what_is_not_finite_is_left_out() -> None:
    drawn = curves([0.0, 1.0, 2.0], {"a": [0.0, math.nan, math.inf], "b": [math.nan] * 3}, "x", "y")
    assert paths(drawn, "2") == ["M3.70 96.30"]
    assert paths(drawn, "5.5") == ["M3.70 96.30h0"]
    assert drawn.count('class="sl-swatch"') == 2  # both are in the key


def test_names_are_escaped() -> None:
    assert "<b>" not in curves([0.0, 1.0], {"<b>": [0.0, 1.0]}, "<b>x", '<b>"y')
