"""Sparse control: the arithmetic by hand, on answers that are given."""

import math

import pytest
import torch

from saelab.evaluation.ioi.control import control
from saelab.evaluation.ioi.edits import EditPath
from saelab.evaluation.ioi.nodes import Outcome
from tests.evaluation.ioi.readout import ONE, TWO, first_number


def path_of(x: list[float], change: list[list[float]], share: list[list[float]]) -> EditPath:
    steps = torch.tensor(change)
    return EditPath(torch.tensor(x)[:, None], torch.eye(1), torch.where(steps != 0, 0, -1), steps, torch.tensor(share))


def test_control_by_hand() -> None:
    # Four prompts; the true patch makes them 5, 5, 5, 1, which the last one is already.
    paths = {
        ONE: path_of([1, 1, 1, 1], [[4, 0], [2, 1], [3, 1], [0, 0]], [[0.5, 0], [0.2, 0.2], [0.3, 0.1], [0, 0]]),
        TWO: path_of([0, 0, 0, 0], [[0, 0], [1, 0], [2, -1], [0, 0]], [[0, 0], [0, 0], [0.1, 0], [0, 0]]),
    }
    clean, true = first_number({ONE: torch.ones(4, 1)}), Outcome(torch.tensor([5, 5, 5, 1]), torch.zeros(4))
    supervised = torch.tensor([True, True, False, True])
    found = control(first_number, paths, clean, true, budgets=(1, 2, 8), supervised=supervised)
    assert found.no_edit.value == 0.25
    assert [score.k for score in found.scores] == [1, 2, 8]
    # k = 1: 1+4, 1+2+1 = 4, 1+3+2 = 6, 1. k = 2: 5, 5, 6, 1. After that nothing changes.
    assert [score.accuracy.value for score in found.scores] == [0.5, 0.75, 0.75]
    assert [score.normalised.value for score in found.scores] == pytest.approx([1 / 3, 2 / 3, 2 / 3])
    assert [score.relative.value for score in found.scores if score.relative] == pytest.approx([1 / 2, 1, 1])
    assert [score.magnitude.value for score in found.scores] == pytest.approx([1.1 / 8, 1.4 / 8, 1.4 / 8])
    assert control(first_number, paths, clean, true, budgets=(1,)).scores[0].relative is None


def test_nothing_to_gain_has_no_normalised_score() -> None:
    clean = first_number({ONE: torch.ones(3, 1)})
    found = control(first_number, {ONE: path_of([1, 1, 1], [[0]] * 3, [[0.0]] * 3)}, clean, clean, budgets=(1,))
    assert found.no_edit.value == found.scores[0].accuracy.value == 1
    assert math.isnan(found.scores[0].normalised.value)
