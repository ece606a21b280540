"""Probes on cases worked out by hand, against brute force, and where the answer is built in."""

from itertools import combinations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saelab.evaluation.labels.probes import (
    auroc,
    best_thresholds,
    columns,
    dense_probe,
    detection,
    matching_pursuit,
    sparse_probe,
)
from saelab.kernels.codes import SparseCodes


def sparse(dense: Tensor) -> SparseCodes:
    return SparseCodes.from_mask(dense, dense > 0)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_detection_by_hand():
    # Detected: tokens 0, 1, 2; positive: 1, 2, 4, 5. TP 2, precision 2/3, recall 2/4, F1 = 4 / 7.
    on = column(1, 1, 1, 0, 0, 0).bool()
    found = detection(on, column(0, 1, 1, 0, 1, 1).bool())
    assert found.precision.tolist() == pytest.approx([2 / 3])
    assert found.recall.tolist() == [0.5]
    assert found.f1.tolist() == pytest.approx([4 / 7])


def test_nothing_detected_has_no_precision():
    found = detection(torch.zeros(3, 1).bool(), column(1, 0, 0).bool())
    assert found.precision.isnan().item()
    assert (found.recall.item(), found.f1.item()) == (0, 0)


def test_auroc_by_hand():
    # Positives 3 and 1, negatives 2, 1 and 0. Of the six pairs 3 beats all three, 1 beats 0 and ties with 1: 4.5 / 6.
    assert auroc(column(3, 1, 2, 1, 0), column(1, 1, 0, 0, 0).bool()).tolist() == [0.75]


def test_auroc_needs_both_values():
    assert auroc(column(1, 2), column(1, 1).bool()).isnan().item()


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=20))
def test_auroc_is_the_share_of_pairs(tokens: list[tuple[int, bool]]):
    scores, truth = torch.tensor([s for s, _ in tokens]).float()[:, None], torch.tensor([t for _, t in tokens])[:, None]
    pairs = [(s > t) + (s == t) / 2 for (s, a), (t, b) in product(tokens, tokens) if a and not b]
    expected = sum(pairs) / len(pairs) if pairs else float("nan")
    assert auroc(scores, truth).item() == pytest.approx(expected, nan_ok=True)


def test_a_threshold_by_hand():
    # From the top: 4 +, 3 −, 2 +, 1 −. F1 at 4: 2/3; at 3: 1/2; at 2: 4/5; at 1: 4/6. So between 2 and 1.
    assert best_thresholds(column(1, 4, 2, 3), column(0, 1, 1, 0).bool()).tolist() == [1.5]


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_no_threshold_is_better(tokens: list[tuple[int, bool]]):
    scores, truth = torch.tensor([s for s, _ in tokens]).float()[:, None], torch.tensor([t for _, t in tokens])[:, None]
    if not truth.any():
        return
    chosen = detection(scores > best_thresholds(scores, truth), truth).f1.item()
    assert chosen == max(detection(scores >= value, truth).f1.item() for value in scores.unique())


def test_columns_are_those_of_the_dense_codes():
    dense = torch.rand(30, 9, generator=torch.Generator().manual_seed(0)).sub(0.6).clamp_min(0)
    assert columns(sparse(dense), torch.tensor([7, 2, 2])).equal(dense[:, [7, 2, 2]])


def test_the_one_latent_that_is_the_label_comes_first():
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(200, 6, generator=generator).sub(0.5).clamp_min(0)
    labels = torch.stack([dense[:, 4] > 0, dense[:, 1] > 0], dim=1)
    assert matching_pursuit(sparse(dense), labels, 1)[:, 0].tolist() == [4, 1]


def test_two_halves_are_found_and_a_double_is_not():
    # Latents 0 and 1 fire on the two halves of the label, latent 2 as 0 does, latent 3 by chance.
    generator = torch.Generator().manual_seed(1)
    half = torch.randint(4, (400,), generator=generator)
    dense = torch.stack([half == 0, half == 1, half == 0, torch.rand(400, generator=generator) > 0.5], dim=1).float()
    chosen = matching_pursuit(sparse(dense), (half < 2)[:, None], 2)
    assert set(chosen[0].tolist()) in ({0, 1}, {1, 2})


def test_pursuit_finds_the_best_pair_of_a_small_dictionary():
    generator = torch.Generator().manual_seed(2)
    dense = torch.rand(300, 7, generator=generator).sub(0.3).clamp_min(0)
    label = (dense[:, 5] + 0.8 * dense[:, 2] > 0.6)[:, None]

    def left(pair: tuple[int, int]) -> float:
        x = torch.cat([dense[:, list(pair)], torch.ones(300, 1)], dim=1)
        solution = torch.linalg.lstsq(x, label.float()).solution
        return float((label.float() - x @ solution).square().sum())

    assert sorted(matching_pursuit(sparse(dense), label, 2)[0].tolist()) == list(
        min(combinations(range(7), 2), key=left)
    )


def test_silent_latents_are_never_chosen_before_others():
    dense = torch.zeros(50, 4)
    dense[:25, 3] = 1.0
    dense[10:40, 1] = 1.0
    assert set(matching_pursuit(sparse(dense), (torch.arange(50) < 20)[:, None], 2)[0].tolist()) == {1, 3}


def test_a_dense_probe_reads_a_linear_label_on_new_tokens():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(600, 5, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 1.0, 1.0]) + 3
    labels = torch.stack([x[:, 1] > 8, x[:, 2] + 0.1 * x[:, 0] > 3.35], dim=1)
    probe = dense_probe(x[:400], labels[:400], x[400:]).probe
    assert auroc(probe.held_out, labels[400:]).min() > 0.99
    assert (probe.fitted.shape, probe.held_out.shape) == ((400, 2), (200, 2))


def test_a_sparse_probe_is_a_dense_one_on_its_columns():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(400, 3, generator=generator).sub(0.5).clamp_min(0)
    label = x[:, 0] + x[:, 1] + 0.2 * torch.randn(400, generator=generator) > 0.3
    fitted, held_out = sparse_probe(x, label, x[:50])
    dense = dense_probe(x, label[:, None], x[:50]).probe
    torch.testing.assert_close(fitted, dense.fitted[:, 0], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(held_out, dense.held_out[:, 0], atol=2e-2, rtol=2e-2)


def test_a_label_that_the_columns_separate_ends_in_finite_scores():
    x = (torch.arange(100) < 20).float()[:, None]
    fitted, _ = sparse_probe(x, x[:, 0] > 0, x)
    assert fitted.isfinite().all()
    assert ((fitted > 0) == (x[:, 0] > 0)).all()


def test_a_probe_of_nothing_says_the_base_rate():
    labels = (torch.arange(100) < 30)[:, None]
    probe = dense_probe(torch.zeros(100, 2), labels, torch.zeros(4, 2)).probe
    torch.testing.assert_close(probe.held_out.sigmoid(), torch.full((4, 1), 0.3))
