"""Which latents fire on one text and not on another, by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saelab.dictionaries.dictionary import Dictionary
from saelab.features.contrast import by_contrast, strengths
from saelab.features.prompt import Contrast, read_prompt
from saelab.models import LanguageModel


def test_contrast_is_the_difference_in_units_of_the_largest_activation() -> None:
    #                  fires on both, on the first, on the second, never in the index, nowhere, as the second latent
    on = torch.tensor([4.0, 1.0, 0.0, 9.0, 0.0, 2.0])
    off = torch.tensor([2.0, 0.0, 3.0, 0.0, 0.0, 0.0])
    largest = torch.tensor([8.0, 2.0, 3.0, 0.0, 5.0, 4.0])
    ranking = by_contrast(on, off, largest, 10)
    assert ranking.latents == [Contrast(1, 0.5, 0.0), Contrast(5, 0.5, 0.0), Contrast(0, 0.5, 0.25)]
    assert ranking.unknown == 1
    assert by_contrast(on, off, largest, 1).latents == [Contrast(1, 0.5, 0.0)]


def test_strengths_are_the_largest_or_the_mean_over_kept_tokens(
    model: LanguageModel, random_run: tuple[Path, Dictionary]
) -> None:
    reading = read_prompt(model, random_run[1], torch.tensor([0, 20, 30, 40, 50]))
    dense = torch.stack([reading.of(latent) for latent in range(random_run[1].d_sae)], dim=1)
    kept = dense[reading.kept]
    assert len(kept) == 4  # the first is left out
    torch.testing.assert_close(strengths(reading, "largest"), kept.amax(0))
    torch.testing.assert_close(strengths(reading, "mean"), kept.mean(0))
    nothing = replace(reading, excluded=torch.ones_like(reading.excluded), codes=reading.codes.take(0, 0))
    assert strengths(nothing, "mean").abs().sum() == pytest.approx(0)
