"""Numbers as people read them."""

from __future__ import annotations

import pytest

from app.notation import counted, percent, plain, short, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (0.0, "0"), (1234, "1,234"), (12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"),
     (1.234, "1.23"), (0.1234, "0.123"), (0.00012, "1.2e-04"), (-2.5, "-2.50")],
)  # fmt: skip
def test_short(value: float | None, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "0%"), (1.0, "100.0%"), (0.104, "10.4%"), (0.0123, "1.23%"), (0.00123, "0.12%"),
     (0.000977, "0.098%"), (0.0000123, "0.0012%"), (0.0000000123, "1.2e-06%")],
)  # fmt: skip
def test_percent(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(512, "512"), (9999, "9,999"), (24_576, "24.6k"), (1_200_000, "1.2M"), (2_000_000_000, "2B")]
)
def test_counted(value: int, text: str) -> None:
    assert counted(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.126, "+0.13"), (-0.126, "-0.13"), (-0.004, "0.00"), (0.004, "0.00"), (0.0, "0.00"), (-0.005001, "-0.01")],
)
def test_what_rounds_to_nothing_has_no_sign(value: float, text: str) -> None:
    assert signed(value, 2) == text


def test_plain_escapes_what_markdown_would_read() -> None:
    assert plain("my_run **v2** :red[x] $a$") == r"my\_run \*\*v2\*\* \:red\[x\] \$a\$"
    assert plain("demo 7") == "demo 7"
