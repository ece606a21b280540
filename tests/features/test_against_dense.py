"""Every number of an index, against the same number from the dense matrix of all codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saelab.dictionaries.dictionary import Dictionary
from saelab.features import FeatureIndex
from saelab.models import LanguageModel
from tests.features.conftest import CONTEXT, D_SAE, K, Truth

LATENTS = range(D_SAE)


def test_activations_are_those_of_the_dictionary(index: FeatureIndex, truth: Truth) -> None:
    found = np.zeros_like(truth.codes)
    for latent in LATENTS:
        activations = index.activations(latent)
        found[activations.token, latent] = activations.value
    np.testing.assert_array_equal(found, truth.codes)


def test_activations_come_in_text_order_or_the_largest_first(index: FeatureIndex) -> None:
    everything, largest = index.activations(9), index.activations(9, limit=5)
    assert (np.diff(everything.token) > 0).all()
    np.testing.assert_array_equal(largest.value, np.sort(everything.value)[::-1][:5])


def test_statistics(index: FeatureIndex, truth: Truth) -> None:
    for latent in LATENTS:
        codes = truth.codes[:, latent]
        active = codes[codes > 0]
        statistics = index.latent(latent)
        assert statistics.n_active == len(active)
        assert statistics.density == len(active) / truth.kept.sum()
        if len(active):
            assert statistics.max_activation == active.max()
            assert statistics.mean_activation == pytest.approx(active.mean(dtype=np.float64), rel=1e-6)
        else:
            assert statistics.max_activation is None
            assert statistics.mean_activation is None


def test_histograms_count_equal_bins_closed_above(index: FeatureIndex, truth: Truth) -> None:
    for latent in LATENTS:
        active = truth.codes[truth.codes[:, latent] > 0, latent].astype(np.float64)
        expected = np.zeros(40, int)
        for value in active:
            expected[int(np.ceil(value / active.max() * 40)) - 1] += 1
        np.testing.assert_array_equal(index.latent(latent).histogram, expected)


def test_top_tokens_have_the_largest_share_of_the_mass(index: FeatureIndex, truth: Truth) -> None:
    for latent in LATENTS:
        mass = np.bincount(truth.ids, weights=truth.codes[:, latent])
        expected = sorted(np.flatnonzero(mass), key=lambda id: (-mass[id], id))[:10]
        statistics = index.latent(latent)
        assert statistics.top_tokens == expected
        np.testing.assert_allclose(statistics.top_token_share, mass[expected] / max(mass.sum(), 1e-9), rtol=1e-5)


def test_top_examples_are_the_largest_of_distinct_documents(index: FeatureIndex, truth: Truth) -> None:
    for latent in LATENTS:
        best: dict[int, int] = {}
        for token in np.argsort(-truth.codes[:, latent], kind="stable"):
            if truth.codes[token, latent] > 0:
                best.setdefault(int(truth.documents[token]), int(token))
        assert [example.token for example in index.examples(latent, 0)] == list(best.values())[:20]


def test_quarter_examples_lie_in_their_quarter_and_fill_it(index: FeatureIndex, truth: Truth) -> None:
    for latent in LATENTS:
        codes = truth.codes[:, latent].astype(np.float64)
        for quarter in range(1, 5):
            inside = np.flatnonzero((codes > (quarter - 1) / 4 * codes.max()) & (codes <= quarter / 4 * codes.max()))
            documents = set(truth.documents[inside]) if codes.max() > 0 else set()
            examples = index.examples(latent, quarter)
            assert {example.token for example in examples} <= set(inside)
            assert len({example.document for example in examples}) == len(examples) == min(3, len(documents))
            assert [example.rank for example in examples] == list(range(len(examples)))
            assert sorted((example.value for example in examples), reverse=True) == [e.value for e in examples]


def test_example_windows_hold_the_text_and_this_latents_activations(index: FeatureIndex, truth: Truth) -> None:
    for latent in LATENTS:
        for example in index.examples(latent):
            row = example.token // CONTEXT * CONTEXT
            window = slice(max(example.token - 24, row), min(example.token + 11, row + CONTEXT))
            np.testing.assert_array_equal(example.tokens, truth.ids[window])
            np.testing.assert_array_equal(example.values, truth.codes[window, latent])
            assert example.values[example.focus] == np.float32(example.value)
            assert example.document == truth.documents[example.token]


def test_losses_of_example_windows(index: FeatureIndex, truth: Truth) -> None:
    examples = index.examples(9)
    for example, losses in zip(examples, index.losses(examples), strict=True):
        first = example.token - example.focus
        np.testing.assert_allclose(losses, truth.loss[first : first + len(example.tokens)], rtol=1e-6)
    assert index.losses([]) == []


def test_windows_of_the_text(index: FeatureIndex, truth: Truth) -> None:
    window = index.window(CONTEXT + 3, before=10, after=5, latent=9)
    here = slice(CONTEXT, CONTEXT + 9)  # clipped to the row on the left
    assert (window.first, window.focus) == (CONTEXT, 3)
    np.testing.assert_array_equal(window.tokens, truth.ids[here])
    np.testing.assert_array_equal(window.documents, truth.documents[here])
    np.testing.assert_array_equal(window.kept, truth.kept[here])
    np.testing.assert_allclose(window.loss, truth.loss[here], rtol=1e-6)
    np.testing.assert_array_equal(window.values, truth.codes[here, 9])


def test_the_loss_is_unknown_at_the_end_of_a_row(index: FeatureIndex) -> None:
    window = index.window(CONTEXT - 1)
    assert np.isnan(window.loss[-1])
    assert np.isfinite(window.loss[:-1]).all()


def test_nothing_is_active_where_the_policy_excludes(index: FeatureIndex, truth: Truth) -> None:
    assert not truth.kept[::CONTEXT].any()
    tokens = np.concatenate([index.activations(latent).token for latent in LATENTS])
    assert truth.kept[tokens].all()


def test_logits_are_the_models_own(
    index: FeatureIndex, model: LanguageModel, random_run: tuple[object, Dictionary]
) -> None:
    weights = model.direct_logits(random_run[1].decoder_directions())
    for latent in (0, 7, 47):
        logits = index.logits(latent)
        for found, order in (
            (logits.promoted, (-weights[latent]).argsort()),
            (logits.suppressed, weights[latent].argsort()),
        ):
            assert [token.id for token in found] == order[:12].tolist()
            np.testing.assert_allclose([t.weight for t in found], weights[latent, order[:12]], rtol=1e-5)


def test_neighbours_have_the_largest_cosine(index: FeatureIndex, random_run: tuple[object, Dictionary]) -> None:
    directions = torch.nn.functional.normalize(random_run[1].W_dec, dim=1)
    cosine = (directions @ directions.T).fill_diagonal_(-2)
    for latent in (0, 7, 47):
        order = (-cosine[latent]).argsort()[:10]
        assert [n.latent for n in index.neighbours(latent)] == order.tolist()
        np.testing.assert_allclose([n.cosine for n in index.neighbours(latent)], cosine[latent, order], atol=1e-6)


def test_coactivation_counts_tokens_on_which_both_are_active(index: FeatureIndex, truth: Truth) -> None:
    on = (truth.codes > 0).astype(float)
    assert index.summary["coactivation_tokens"] == truth.kept.sum()
    both = on.T @ on
    for latent in LATENTS:
        cosine = both[latent] / np.sqrt(np.maximum(both[latent, latent] * np.diag(both), 1))
        others = [i for i in np.flatnonzero(both[latent]) if i != latent]
        expected = sorted(others, key=lambda i: (-cosine[i], i))[:10]
        found = index.coactive(latent)
        assert [c.latent for c in found] == expected
        assert [c.n_both for c in found] == both[latent, expected].tolist()
        np.testing.assert_allclose([c.cosine for c in found], cosine[expected], rtol=1e-6)
        np.testing.assert_allclose(
            [c.share for c in found], both[latent, expected] / max(on[:, latent].sum(), 1), rtol=1e-6
        )


def test_search_by_token_ranks_latents_by_mass(index: FeatureIndex, truth: Truth) -> None:
    for id in np.unique(truth.ids[truth.kept]):
        mass = truth.codes[truth.ids == id].sum(axis=0, dtype=np.float64)
        found = index.search_token(int(id), limit=1000)
        assert {hit.latent for hit in found} == set(np.flatnonzero(mass))
        np.testing.assert_allclose([hit.mass for hit in found], np.sort(mass[mass > 0])[::-1], rtol=1e-5)
        shares = [mass[hit.latent] / truth.codes[:, hit.latent].sum(dtype=np.float64) for hit in found]
        np.testing.assert_allclose([hit.share for hit in found], shares, rtol=1e-5)


def test_search_by_promoted_token(index: FeatureIndex) -> None:
    promoted = {latent: dict(index.logits(latent).promoted) for latent in LATENTS}
    id = index.logits(0).promoted[0].id
    found = index.search_promoted(id)
    assert {hit.latent for hit in found} == {latent for latent in LATENTS if id in promoted[latent]}
    assert [hit.weight for hit in found] == sorted((promoted[hit.latent][id] for hit in found), reverse=True)


def test_the_summary_says_what_was_indexed(index: FeatureIndex, truth: Truth) -> None:
    summary = index.summary
    assert (summary["n_tokens"], summary["n_positions"]) == (truth.kept.sum(), len(truth.ids))
    assert summary["n_documents"] == len(set(truth.documents))
    assert summary["n_alive"] == (truth.codes > 0).any(axis=0).sum()
    assert summary["l0"] == pytest.approx((truth.codes > 0).sum() / truth.kept.sum())
    assert summary["l0"] <= K
    assert summary["corpus_exhausted"] is True
