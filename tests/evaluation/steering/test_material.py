"""What is known of the text: places to steer at, how well tokens tell labels, and means of activations."""

import pytest
import torch

from saelab.errors import UserError
from saelab.evaluation.batch import CleanBatch
from saelab.evaluation.steering.config import SteeringConfig
from saelab.evaluation.steering.material import SteeringText
from saelab.models import Site

SITE = Site.parse("blocks.0.resid_post")
NAMES = ("even", "small", "never", "after an even one")


def of_ids(rows) -> torch.Tensor:
    """Three labels of the token itself, one of the token before it."""
    even = rows.ids % 2 == 0
    after = torch.cat([torch.zeros_like(even[:, :1]), even[:, :-1]], dim=1)
    return torch.stack([even, rows.ids < 10, rows.ids > 100, after], dim=-1)


def seen(model, chunks, labelled: bool = True, **settings) -> SteeringText:
    config = SteeringConfig.model_validate({"contexts": 4, "following": 2, "longest": 9, **settings})
    text = SteeringText(NAMES, config, 0, [(SITE,)])
    for chunk in chunks:
        batch = CleanBatch(model, chunk, [SITE], False, of_ids if labelled else None)
        text.take(text.measure(batch))
    return text


@pytest.fixture(scope="module")
def text(model, chunks) -> SteeringText:
    return seen(model, chunks)


def test_places_lie_in_odd_documents_on_kept_tokens(rows, model, chunks):
    for seed in range(6):
        text = seen(model, chunks, contexts=10)
        text.seed = seed
        assert len(text.places) == 4  # documents 1 and 3 have two rows each
        for place in text.places:
            at = len(place.ids) - 1 - 2
            row = next(i for i in range(10) if torch.equal(rows.ids[i, : len(place.ids)].long(), place.ids))
            assert rows.keep[row, at]
            assert place.document == rows.documents[row, at]
            assert place.document % 2 == 1
            assert 1 <= at < 9


def test_places_do_not_depend_on_the_batch_size(model, cut):
    first, second = (seen(model, cut(size)).places for size in (1, 7))
    assert [(p.ids.tolist(), p.document) for p in first] == [(p.ids.tolist(), p.document) for p in second]


def test_too_little_text_is_refused(model, cut):
    with pytest.raises(UserError, match="has 0 places to steer at"):
        _ = seen(model, cut(2)[:1]).places


def test_how_well_a_token_tells_a_label(text, rows):
    # By hand: of every token in odd documents, the rate of its id in even ones as a guess.
    labels, ids = of_ids(rows), rows.ids.long()
    learnt, judged = (rows.documents % 2 == half for half in (0, 1))
    for label in (0, 1, 3):
        rate = torch.zeros(40, dtype=torch.float64)
        for token in range(40):
            here = learnt & (ids == token)
            rate[token] = labels[..., label][here].double().mean() if here.any() else 0.0
        torch.testing.assert_close(text.rates[:, label], rate)
        y = labels[..., label][judged].double()
        missed = (y - rate[ids[judged]]).square().sum() / (y - y.mean()).square().sum()
        assert text.told[label].item() == pytest.approx(1 - missed.item())
    assert text.told[2].isnan()
    assert text.told[0] > text.told[3]


def test_only_labels_that_a_token_tells_are_aimed_at(model, cut):
    # Every id twice, once in an even and once in an odd document: all of them are known where they are judged.
    text = seen(model, cut(5))
    text.told = torch.tensor([0.95, 0.9, float("nan"), 0.1])
    assert text.targets == [0, 1]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [(["after an even one"], "'after an even one' can't be judged"), (["odd"], "'odd' can't be judged")],
)
def test_a_label_that_a_token_does_not_tell_is_refused(model, cut, labels, sentence):
    text = seen(model, cut(5), labels=labels)
    text.told = torch.tensor([0.95, 0.9, float("nan"), 0.1])
    with pytest.raises(UserError, match=f"{sentence} by the next token alone on this text; these can: even, small"):
        _ = text.targets


def test_without_labels_there_is_nothing_to_aim_at(model, chunks):
    assert seen(model, chunks, labelled=False).targets == []
    assert seen(model, chunks[:1]).targets == []  # too few tokens to learn any label from
    with pytest.raises(UserError, match="nothing is known of this text's tokens"):
        _ = seen(model, chunks, labelled=False, labels=["even"]).targets


def test_means_by_hand(text, model, rows):
    x = model.activations(rows.ids.long(), [SITE])[SITE].double()
    moments = text.moments((SITE,))
    kept = x[rows.keep]
    expected = (kept - kept.mean(0)).square().sum(1).mean().sqrt()
    assert moments.typical == pytest.approx(expected.item())
    labels, fit = of_ids(rows), rows.keep & (rows.documents % 2 == 0)
    fit[:, -1] = False  # the last position of a row has no next token
    ahead = torch.cat([labels[:, 1:], labels[:, :1]], dim=1)
    for label in (0, 1, 3):
        for column, of in ((label, labels), (len(NAMES) + label, ahead)):
            on = of[..., label]
            difference = x[fit & on].mean(0) - x[fit & ~on].mean(0)
            torch.testing.assert_close(moments.differences[column], difference)
    assert moments.differences[2].isnan().all()
