"""What training let each latent have, and whether a dictionary keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.budget import Budget, mark, warnings
from app.dictionary.budgets import budgets
from app.workspace import Run
from saelab.dictionaries.allocation import zipf_shares
from saelab.disk import RunPaths


def config(**allocation: object) -> dict[str, Any]:
    return {"k": 4, "d_sae": 100, "allocation": allocation}


def test_all_but_feature_choice_share_alike() -> None:
    line = budgets(config(kind="token"), [], [1, 50])
    assert line is not None
    assert line.at == [0.04, 0.04]
    uniform = budgets(config(kind="feature", budgets="uniform"), [], [1])
    assert uniform is not None
    assert uniform.at == [0.04]
    assert "m_i" in uniform.words


def test_feature_choice_follows_its_law_as_in_training() -> None:
    line = budgets(config(kind="feature", budgets="zipf", exponent=1.5, shift=3.0), [], list(range(1, 101)))
    assert line is not None
    density = torch.linspace(1, 0, 100)  # rank is place
    torch.testing.assert_close(torch.tensor(line.at, dtype=torch.float64), 4 * zipf_shares(density, 1.5, 3.0))
    steep = budgets(config(kind="feature", budgets="zipf", exponent=9.0, shift=0.0), [], [1, 2])
    assert steep is not None
    assert steep.at[0] == 1.0  # no latent gets more tokens than there are


def test_the_law_is_that_of_the_end_of_the_first_phase() -> None:
    def line(tokens: int, s: float | None) -> dict[str, Any]:
        return {"tokens": tokens, "zipf": None if s is None else {"s": s, "q": 1.0}}

    log = [line(10, 9.0), line(20, None), line(30, 1.25), line(100, 7.0)]
    found = budgets(config(kind="feature", budgets="zipf", exponent=None, warmup_fraction=0.2), log, [1])
    assert found is not None
    assert "s = 1.25" in found.words
    assert budgets(config(kind="feature", budgets="zipf", exponent=None), [], [1]) is None


@pytest.mark.parametrize("known", [{}, {"k": 4}, config(kind="group")])
def test_no_budget_no_line(known: dict[str, Any]) -> None:
    assert budgets(known, [], [1]) is None


def budget(ratio: float, has_thresholds: bool = True, name: str = "a") -> Budget:
    return Budget(Run(name, RunPaths(Path("/runs") / name)), 16 * ratio, ratio, has_thresholds)


def test_five_percent_off_is_still_on() -> None:
    assert not budget(1.049).is_off
    assert not budget(0.951).is_off
    assert budget(1.051).is_off
    assert budget(0.94).is_off
    assert mark(budget(1.04)) == mark(None) == warnings([budget(1.0)]) == ""
    assert "keeps 17.6 latents per token, +10% of what it was trained to keep" in mark(budget(1.1))


def test_warnings_name_the_command_where_it_helps_and_the_worst_first() -> None:
    said = warnings([budget(1.1, name="<b>"), budget(0.5, name="worst"), budget(1.2, has_thresholds=False)])
    assert said.index("worst") < said.index("&lt;b&gt;")
    assert "saelab calibrate /runs/worst --write" in said
    assert said.count("saelab calibrate") == 2
    assert "and 3 more" in warnings([budget(2.0)] * 9)
