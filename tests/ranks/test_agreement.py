"""Facts that ranks compare before they begin."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from saelab.errors import UserError
from saelab.ranks import Ranks
from saelab.ranks.agreement import agree_on


class Answered(Ranks):
    """The first rank, the others' answers given."""

    def __init__(self, others: list[dict[str, Any]]) -> None:
        super().__init__(size=1 + len(others))
        self.others = [json.dumps(other) for other in others]

    def gather(self, key: str, value: str = "", meanwhile: Callable[[], None] = lambda: None) -> list[str]:
        return [value, *self.others]


FACTS = {"settings": {"tokens": 900, "batch": 4}, "threads": 1}


def test_ranks_that_mean_the_same_go_on() -> None:
    agree_on(Ranks(), FACTS)
    agree_on(Answered([FACTS, dict(reversed(FACTS.items()))]), FACTS)


def test_the_first_that_differs_is_named_with_the_first_differences() -> None:
    other = {"settings": {"tokens": 800, "batch": 2, "seed": 1}, "threads": 2}
    with pytest.raises(UserError) as caught:
        agree_on(Answered([FACTS, other]), FACTS)
    assert str(caught.value).startswith(
        "rank 2 has not what rank 0 has (settings.batch: 4 → 2; settings.seed: None → 1; settings.tokens: 900 → 800; …)"
    )
