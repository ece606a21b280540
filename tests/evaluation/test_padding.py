"""Rows filled up on the right are evaluated as the short rows they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from saelab.corpora import Reason, TokenRows
from saelab.corpora.rows import PADDING
from saelab.dictionaries.config import GradientAffinity
from saelab.evaluation.batch import CleanBatch, Subject
from saelab.models import LanguageModel, Site

SITE = Site(0, "resid_post")
LENGTHS = [5, 12, 2, 8]


@pytest.fixture
def filled(rows: TokenRows) -> Callable[[int], TokenRows]:
    """Four rows of these lengths; what fills them up is one token id."""

    def fill(filler: int) -> TokenRows:
        four = rows.first(len(LENGTHS))
        padding = torch.arange(rows.ids.shape[1]) >= torch.tensor(LENGTHS)[:, None]
        return replace(
            four,
            ids=four.ids.masked_fill(padding, filler),
            offsets=four.offsets.masked_fill(padding, PADDING),
            excluded=four.excluded.masked_fill(padding, Reason.PADDING),
        )

    return fill


def test_the_last_real_token_predicts_nothing(model: LanguageModel, filled: Callable[[int], TokenRows]):
    padded = filled(0)
    batch = CleanBatch(model, padded, [SITE], with_output=True)
    assert batch.scored.sum(1).tolist() == [int(padded.keep[i, : n - 1].sum()) for i, n in enumerate(LENGTHS)]
    short = [model.loss(padded.ids[i : i + 1, :n])[0, padded.keep[i, : n - 1]] for i, n in enumerate(LENGTHS)]
    assert_close(batch.clean_loss, torch.cat(short), atol=1e-5, rtol=1e-5)


def test_what_rows_are_filled_up_with_changes_nothing(
    model: LanguageModel, filled: Callable[[int], TokenRows], random_subject: Callable[..., Subject]
):
    plain = random_subject(str(SITE))
    config = plain.dictionary.config.model_copy(update={"affinity": GradientAffinity()})
    subject = replace(plain, dictionary=replace(plain.dictionary, config=config))
    batches = [CleanBatch(model, filled(filler), [SITE], with_output=True) for filler in (0, 17)]
    one, two = (batch.encoded_with_gradient(subject) for batch in batches)
    assert torch.equal(one.codes.latents, two.codes.latents)
    assert_close(one.codes.values, two.codes.values)
    assert_close(batches[0].clean_loss, batches[1].clean_loss)
    spliced = [batch.compare([SITE], one.x_hat) for batch in batches]
    assert_close(spliced[0].loss, spliced[1].loss)
    assert_close(spliced[0].kl, spliced[1].kl)
