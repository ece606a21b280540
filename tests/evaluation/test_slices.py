"""Fidelity of slices of the predictions: bins by hand, and each slice against the losses taken directly."""

import pytest
import torch

from saelab.corpora import TokenRows
from saelab.corpora.microworld.labels import LABELS
from saelab.evaluation.measure import Text, measure, measured
from saelab.evaluation.report import FidelityReport
from saelab.evaluation.slice_report import Slice
from saelab.evaluation.slices import position_bins
from saelab.evaluation.substitution import numbers
from saelab.models import Intervention

SITE = "blocks.0.resid_post"


def of_ids(rows: TokenRows) -> torch.Tensor:
    """Label 0 is "an even id", label 1 "an id below 10", label 2 "the id 3" (rare); the others are on nothing."""
    labels = torch.zeros(*rows.ids.shape, len(LABELS), dtype=torch.bool)
    labels[..., 0] = rows.ids % 2 == 0
    labels[..., 1] = rows.ids < 10
    labels[..., 2] = rows.ids == 3
    return labels


def fidelity(model, subject, chunks, **text) -> FidelityReport:
    (report,) = measure(model, [subject], chunks, ["fidelity"], resamples=50, text=Text(**text))
    assert isinstance(report, FidelityReport)
    return report


@pytest.fixture(scope="module")
def subject(random_subject):
    return random_subject(SITE)


@pytest.fixture(scope="module")
def direct(model, rows, subject):
    """Loss of the clean model and with the reconstruction, and KL, at every position of every row."""
    ids, keep = rows.ids.long(), rows.keep[..., None]
    with torch.no_grad():
        edit = Intervention(subject.site, lambda x: torch.where(keep, subject.dictionary(x), x))
        clean = model.logits(ids)
        with model.intervene(edit):
            sae = model.logits(ids)
    p, q = clean[:, :-1].log_softmax(-1), sae[:, :-1].log_softmax(-1)
    losses = [-logs.gather(2, ids[:, 1:, None])[..., 0] for logs in (p, q)]
    return *losses, (p.exp() * (p - q)).sum(-1)


@pytest.mark.parametrize(
    ("context", "bins"),
    [
        (1, [(0, 0)]),
        (3, [(0, 0), (1, 1), (2, 2)]),
        (4, [(0, 0), (1, 1), (2, 2), (3, 3)]),
        (5, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]),
        (20, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 7), (8, 15), (16, 19)]),
        (16, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 7), (8, 15)]),
    ],
)
def test_bins_by_hand(context: int, bins: list[tuple[int, int]]):
    assert position_bins(context) == bins


def test_positions_agree_with_a_direct_computation(model, rows, chunks, subject, direct):
    report = fidelity(model, subject, chunks)
    clean, sae, kl = direct
    assert report.by_position is not None
    assert [(s.first, s.last) for s in report.by_position] == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 7), (8, 11)]
    for found in report.by_position:
        here = slice(found.first, found.last + 1)
        scored = rows.keep[:, :-1][:, here]
        assert found.predictions == int(scored.sum())
        assert found.positions == 10 * (found.last - found.first + 1)
        assert found.excluded == found.positions - int(rows.keep[:, here].sum())
        if found.predictions:
            assert found.ce_clean == pytest.approx(clean[:, here][scored].mean().item(), rel=1e-5)
            assert found.delta_ce == pytest.approx((sae - clean)[:, here][scored].mean().item(), rel=1e-4)
            assert found.kl == pytest.approx(kl[:, here][scored].mean().item(), rel=1e-4)
    # The policy leaves the first position of every row out: nothing is known of it, and that is said.
    first = report.by_position[0]
    assert (first.positions, first.excluded, first.predictions) == (10, 10, 0)
    assert first.delta_ce is first.intervals["delta_ce"].low is None


def test_positions_add_up_to_the_whole(model, chunks, subject):
    report = fidelity(model, subject, chunks)
    slices = report.by_position or []
    assert sum(s.predictions for s in slices) == report.about.predictions
    assert sum(s.positions for s in slices) == report.about.positions
    assert sum(s.excluded for s in slices) == report.about.excluded
    whole = sum((s.delta_ce or 0) * s.predictions for s in slices) / report.about.predictions
    assert report.metrics.delta_ce == pytest.approx(whole, rel=1e-9)


def test_labels_are_those_of_the_predicted_token(model, rows, chunks, subject, direct):
    report = fidelity(model, subject, chunks, labels=of_ids)
    clean, sae, kl = direct
    assert report.by_label is not None
    assert [found.label for found in report.by_label] == list(LABELS)[:2]  # the third has fewer than ten predictions
    for i, found in enumerate(report.by_label):
        about = of_ids(rows)[:, 1:, i] & rows.keep[:, :-1]
        assert found.predictions == int(about.sum())
        assert found.ce_sae == pytest.approx(sae[about].mean().item(), rel=1e-5)
        assert found.delta_ce == pytest.approx((sae - clean)[about].mean().item(), rel=1e-4)
        assert found.kl == pytest.approx(kl[about].mean().item(), rel=1e-4)
        interval = found.intervals["delta_ce"]
        assert (interval.low or 0) < (found.delta_ce or 0) < (interval.high or 0)


def test_nothing_is_said_by_label_where_nothing_is_known(model, chunks, subject):
    assert fidelity(model, subject, chunks).by_label is None


@pytest.mark.parametrize("size", [1, 10])
def test_batch_size_and_order_do_not_matter(model, cut, subject, size: int):
    order = torch.randperm(10, generator=torch.Generator().manual_seed(size)).tolist()
    reports = [fidelity(model, subject, chunks, labels=of_ids) for chunks in (cut(4), cut(size, order))]
    for one, other in zip(*((*(r.by_position or []), *(r.by_label or [])) for r in reports), strict=True):
        assert known(one) == pytest.approx(known(other), rel=1e-4, abs=1e-6)


def known(part: Slice) -> dict[str, float]:
    """All numbers that are defined, ends of intervals included."""
    values = part.model_dump(exclude={"intervals", "label"})
    for name, interval in part.intervals.items():
        values |= {f"{name} {end}": value for end, value in interval.model_dump().items()}
    return {name: value for name, value in values.items() if value is not None}


def test_the_numbers_follow_from_the_sums_of_the_documents(model, chunks, subject):
    (found,) = measured(model, [subject], chunks, ["fidelity"], resamples=20)
    assert found.documents is not None
    sums = dict(found.documents)
    assert sums.pop("document").tolist() == [0, 1, 2, 3, 4]
    expected = numbers({name: values.sum() for name, values in sums.items()})
    metrics = found.report.metrics.model_dump()
    assert {name: float(value) for name, value in expected.items()} == pytest.approx({n: metrics[n] for n in expected})
