"""The sparsity suite's parts on cases worked out by hand, and the whole on a tiny random GPT-2."""

import pytest
import torch

from saelab.dictionaries.zipf import ZipfFit
from saelab.evaluation.measure import measure
from saelab.evaluation.report import SparsityReport
from saelab.evaluation.sparsity import closest_pairs, density_histogram, nearest_latents, underused

SITE = "blocks.0.resid_post"


def test_nearest_latents_by_hand():
    # Directions at 0°, 90°, 60° and, three times as long, 0° again: latents 0 and 3 coincide (cosine 1),
    # latent 1 is 30° from latent 2 (cosine √3/2), latent 2 is 30° from latent 1.
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 3**0.5 / 2], [3.0, 0.0]])
    nearest = nearest_latents(directions)
    assert nearest.latent.tolist() == [3, 2, 1, 0]
    assert nearest.cosine.tolist() == pytest.approx([1, 3**0.5 / 2, 3**0.5 / 2, 1], abs=1e-6)


def test_nearest_latents_in_tiles_as_in_one_piece(monkeypatch):
    directions = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    whole = nearest_latents(directions)
    monkeypatch.setattr("saelab.evaluation.sparsity._TILE_ELEMENTS", 50 * 7)
    tiles = nearest_latents(directions)
    assert tiles.latent.tolist() == whole.latent.tolist()
    torch.testing.assert_close(tiles.cosine, whole.cosine)


def test_opposite_directions_are_not_near():
    assert nearest_latents(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).cosine.tolist() == [-1.0, -1.0]


def test_a_lone_latent_has_no_neighbour():
    nearest = nearest_latents(torch.ones(1, 3))
    assert nearest.cosine.isnan().all()
    assert closest_pairs(nearest) == []


def test_closest_pairs_come_once_each_and_in_order():
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 3**0.5 / 2], [3.0, 0.0]])
    pairs = closest_pairs(nearest_latents(directions))
    assert [(pair.latent, pair.other) for pair in pairs] == [(0, 3), (1, 2)]
    assert [pair.cosine for pair in pairs] == pytest.approx([1, 3**0.5 / 2], abs=1e-6)


def test_density_histogram_by_hand():
    # 1000 tokens: three decades from 10^-3 to 1, a quarter of a decade a bin, twelve bins. Density 0.001 opens the
    # first bin, 0.01 (= 10^-2, the fifth edge) the fifth, 0.5 (10^-0.301) lies in bin 10, density 1 in the last.
    edges, counts = density_histogram(torch.tensor([0.001, 0.01, 0.5, 1.0, 0.0], dtype=torch.float64), 1000)
    assert edges[[0, 4, 12]].tolist() == [-3, -2, 0]
    assert counts.nonzero()[:, 0].tolist() == [0, 4, 10, 11]
    assert int(counts.sum()) == 4  # the dead latent is in no bin


def test_underused_by_hand():
    # The law 0.5 / rank expects 0.5, 0.25, 0.167, 0.125. Of 0.5, 0.2, 0.08, 0.03 the last two are below half of it;
    # a dead latent is dead, not underused.
    law = ZipfFit(1.0, 0.0, torch.tensor(0.5).log().item(), 0, 0, 0, 1, 4)
    assert underused(torch.tensor([0.03, 0.5, 0.0, 0.2, 0.08]), law) == 2


def test_the_suite_on_a_model(model, rows, chunks, random_subject):
    (report,) = measure(model, [random_subject(SITE)], chunks, ["sparsity"])
    assert isinstance(report, SparsityReport)
    metrics, tokens = report.metrics, int(rows.keep.sum())
    assert metrics.l0 == 4
    assert (metrics.l0_p5, metrics.l0_p50, metrics.l0_p95) == (4, 4, 4)
    assert metrics.l0_histogram == [0, 0, 0, 0, tokens]
    assert sum(metrics.density_histogram) + metrics.dead == 32
    assert report.about.tokens == tokens


def test_a_duplicated_latent_is_redundant(model, chunks, make_subject):
    eye = torch.eye(16)
    weights = torch.cat([eye, eye[:2] + 0.01])  # latents 16 and 17 repeat 0 and 1
    (report,) = measure(model, [make_subject(SITE, weights, weights)], chunks, ["sparsity"])
    assert isinstance(report, SparsityReport)
    assert report.metrics.redundant_fraction == pytest.approx(4 / 18)
    assert {(pair.latent, pair.other) for pair in report.metrics.closest_pairs[:2]} == {(0, 16), (1, 17)}


def test_a_dictionary_that_never_fires_has_no_law(model, chunks, make_subject):
    weights = torch.eye(16)
    (report,) = measure(model, [make_subject(SITE, weights, weights, threshold=1e9)], chunks, ["sparsity"])
    assert isinstance(report, SparsityReport)
    assert report.metrics.zipf is None
    assert report.metrics.underused is None
    assert report.metrics.dead_fraction == 1
    assert report.metrics.l0 == 0


def test_it_needs_no_output_of_the_model(model, chunks, random_subject, monkeypatch):
    monkeypatch.setattr(model, "logits", lambda ids: pytest.fail("the sparsity suite ran the model to its end"))
    measure(model, [random_subject(SITE)], chunks, ["sparsity"])


@pytest.mark.parametrize("size", [1, 10])
def test_batch_size_does_not_matter(model, cut, random_subject, size: int):
    subject = random_subject(SITE)
    reports = [measure(model, [subject], cut(n), ["sparsity"])[0] for n in (size, 4)]
    assert reports[0].metrics == reports[1].metrics
