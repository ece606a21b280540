"""F1 of a latent as a detector of a label, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from saelab.features.label_scores import LabelScores, label_scores

# One latent: 10 active tokens in the lowest quarter, 2 in the highest. Label A (4 tokens in the text) is on 1 of the
# low ones and on both high ones; label B (20 tokens) on all 10 low ones and no high one; label C nowhere it fires.
HITS = np.array([[[1, 10, 0], [0, 0, 0], [0, 0, 0], [2, 0, 0]]])
ACTIVE = np.array([[10, 0, 0, 2]])
TOTALS = np.array([4, 20, 5])


@pytest.fixture
def scores() -> LabelScores:
    return label_scores(HITS, ACTIVE, TOTALS, first=100)


def test_labels_are_ranked_by_their_best_f1(scores: LabelScores) -> None:
    # A above ¼ of the maximum: 2 · 2 / (2 + 4) = 0.667 (above 0: 2 · 3 / (12 + 4) = 0.375)
    # B above 0: 2 · 10 / (12 + 20) = 0.625
    assert scores.label.tolist() == [0, 1]
    assert scores.f1.tolist() == pytest.approx([2 / 3, 0.625])
    assert scores.rank.tolist() == [0, 1]
    assert scores.latent.tolist() == [100, 100]


def test_the_lowest_threshold_that_gives_the_best_f1_is_named(scores: LabelScores) -> None:
    assert scores.quarter.tolist() == [1, 0]


def test_precision_and_recall_belong_to_that_threshold(scores: LabelScores) -> None:
    assert scores.precision.tolist() == pytest.approx([2 / 2, 10 / 12])
    assert scores.recall.tolist() == pytest.approx([2 / 4, 10 / 20])


def test_a_label_that_is_nowhere_in_the_text_has_no_score() -> None:
    scores = label_scores(np.zeros((2, 4, 3), int), np.ones((2, 4), int), np.zeros(3, int), first=0)
    assert len(scores.latent) == 0
