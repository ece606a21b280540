"""What both sources promise: shards on disk and the model itself, through the same interface."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from saelab.activations import ActivationBatch, ActivationSource, ActivationStream, ShardReader, open_source
from saelab.corpora import CorpusConfig, TokenPolicy, pack
from saelab.errors import UserError
from saelab.models import LanguageModel, Site
from tests.activations.conftest import LATER, POLICY, SITE

Make = Callable[..., ActivationSource]


@pytest.fixture(params=["stream", "reader"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.getfixturevalue(request.param)


def first(source: ActivationSource, n: int, batch: int = 96, seed: int = 1, start: int = 0) -> list[ActivationBatch]:
    return list(islice(source.batches(batch, seed, start), n))


def same(one: ActivationBatch, two: ActivationBatch) -> bool:
    return torch.equal(one.x, two.x) and torch.equal(one.tokens, two.tokens)


def expected(model: LanguageModel, corpus: CorpusConfig, site: Site, gradient: bool = False) -> torch.Tensor:
    """Activations of the corpus' kept tokens in order, straight from the model."""
    parts = []
    for rows in pack(corpus, model.tokenizer, POLICY, rows=8):  # type: ignore[arg-type]
        if gradient:
            made = model.activations_and_gradients(rows.ids, [site])[1][site]
        else:
            made = model.activations(rows.ids, [site])[site]
        parts.append(made[rows.keep])
    return torch.cat(parts)


def test_rows_are_the_models_activations_of_kept_tokens(make: Make, model: LanguageModel, text: CorpusConfig):
    truth = expected(model, text, SITE)
    for batch in first(make(), 20):
        assert torch.equal(batch.x, truth[batch.tokens])


def test_another_site_as_target(make: Make, model: LanguageModel, text: CorpusConfig):
    truth = expected(model, text, LATER)
    source = make(target=LATER)
    for batch in first(source, 12):
        assert torch.equal(batch.target, truth[batch.tokens])
    assert (source.origin.site, source.origin.target) == (str(SITE), str(LATER))


def test_without_another_target_it_is_the_same_tensor(make: Make):
    for batch in first(make(), 12):
        assert batch.target is batch.x


def test_gradients_come_with_their_tokens(make: Make, model: LanguageModel, text: CorpusConfig):
    truth = expected(model, text, SITE, gradient=True)
    for batch in first(make(gradients=True), 12):
        assert batch.gradient is not None
        assert torch.equal(batch.gradient, truth[batch.tokens])


def test_where_one_starts_changes_no_bit(make: Make):
    """Borders of groups (1000 tokens), of epochs (6,000 and 14,000) and of batches (96) all fall differently."""
    walked = first(make(), 200)
    for start in (1, 10, 11, 40, 198):
        begun = first(make(), 2, start=start)
        assert same(begun[0], walked[start])
        assert same(begun[1], walked[start + 1])


def test_jumping_about_in_one_source_changes_no_bit(make: Make):
    walked = first(make(), 60)
    source = make()
    source.sample(700)
    for start in (50, 3, 59, 0):
        assert same(first(source, 1, start=start)[0], walked[start])


def test_two_iterators_of_one_source_do_not_disturb_each_other(make: Make):
    walked = first(make(), 15)
    source = make()
    one, two = source.batches(96, 1), source.batches(96, 1, start=12)
    for i in range(3):
        assert same(next(one), walked[i])
        assert same(next(two), walked[12 + i])


def test_a_group_delivers_each_of_its_tokens_once(make: Make):
    tokens = torch.cat([batch.tokens for batch in first(make(), 10, batch=100)])
    assert tokens.unique().numel() == 1000


def test_seeds_give_other_orders(make: Make):
    assert not torch.equal(first(make(), 1, seed=1)[0].tokens, first(make(), 1, seed=2)[0].tokens)


def test_neighbours_in_the_text_are_not_neighbours_in_a_batch(make: Make):
    tokens = first(make(), 1, batch=1000)[0].tokens
    assert ((tokens[1:] - tokens[:-1]).abs() == 1).float().mean() < 0.02


def test_a_batch_larger_than_the_buffer_is_refused(make: Make):
    with pytest.raises(UserError, match="batch of 1001 tokens does not fit a buffer of 1000"):
        make().batches(1001, seed=0)


def test_a_batch_larger_than_the_data_is_refused(make: Make):
    with pytest.raises(UserError, match="larger than the data, which is"):
        make(buffer_tokens=100_000).batches(80_000, seed=0)


def test_a_sample_is_shuffled_and_whole(make: Make, model: LanguageModel, text: CorpusConfig):
    source = make()
    sample = source.sample(1500)
    assert sample.shape == (1500, source.d_in)
    assert torch.equal(sample, make().sample(1500))
    assert sample.unique(dim=0).shape[0] > 1400  # a few rows of text begin with the same bytes
    truth = {tuple(row) for row in expected(model, text, SITE).tolist()}
    assert {tuple(row) for row in sample.tolist()} <= truth


def test_a_sample_of_more_than_there_is_is_all_there_is(make: Make):
    source = make()
    assert source.sample(1_000_000).shape[0] == source.n_tokens


def test_origin_says_where_it_comes_from(make: Make, model: LanguageModel, text: CorpusConfig):
    origin = make().origin
    assert (origin.model, origin.model_fingerprint) == (model.name, model.fingerprint)
    assert (origin.corpus, origin.policy) == (text, POLICY)


def test_open_source_chooses_by_the_directory(harvested: Path, tiny_model: Path, text: CorpusConfig):
    on_disk = open_source(harvested, "unused", str(SITE), text, POLICY, buffer=500, device="cpu")
    computed = open_source(None, str(tiny_model), str(SITE), text, POLICY, buffer=500, device="cpu")
    assert isinstance(on_disk, ShardReader)
    assert isinstance(computed, ActivationStream)
    assert on_disk.origin == computed.origin


def test_the_policy_decides_what_is_delivered(stream: Callable[..., ActivationStream]):
    everything = stream(policy=TokenPolicy(context=32, exclude_first=0, exclude_special=False))
    assert everything.n_tokens is not None
    rows = everything.n_tokens / 32
    without_first = stream(policy=TokenPolicy(context=32, exclude_first=3, exclude_special=False))
    assert without_first.n_tokens == rows * 29
