"""What both sources promise: shards on disk and the model itself, through the same interface."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from saelab.activations import (
    ActivationBatch,
    ActivationPass,
    ActivationStream,
    Feed,
    HarvestConfig,
    ShardReader,
    open_pass,
    open_source,
)
from saelab.activations.harvest import harvest
from saelab.corpora import CorpusConfig, TokenPolicy, pack
from saelab.errors import UserError
from saelab.models import LanguageModel, Site
from tests.activations.conftest import LATER, POLICY, SITE

Make = Callable[..., ActivationPass]


@pytest.fixture(params=["stream", "overlapped", "reader"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.getfixturevalue(request.param)


def first(source: ActivationPass, n: int, batch: int = 96, seed: int = 1, start: int = 0) -> list[ActivationBatch]:
    """Batches of a pass with one feed."""
    return [batch for (batch,) in islice(source.batches(batch, seed, start), n)]


def same(one: ActivationBatch, two: ActivationBatch) -> bool:
    return torch.equal(one.x, two.x) and torch.equal(one.tokens, two.tokens)


def identical(one: ActivationBatch, two: ActivationBatch) -> bool:
    """To the last bit, in everything."""
    assert (one.gradient is None) == (two.gradient is None)
    assert (one.target is one.x) == (two.target is two.x)
    gradients = [] if one.gradient is None or two.gradient is None else [(one.gradient, two.gradient)]
    pairs = [(one.x, two.x), (one.target, two.target), (one.tokens, two.tokens), *gradients]
    return all(torch.equal(a, b) for a, b in pairs)


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
    source = make(Feed(SITE, (LATER,)))
    for batch in first(source, 12):
        assert torch.equal(batch.target, truth[batch.tokens])
    assert (source.origin(0).site, source.origin(0).targets) == (str(SITE), (str(LATER),))


def test_without_another_target_it_is_the_same_tensor(make: Make):
    for batch in first(make(), 12):
        assert batch.target is batch.x


def test_gradients_come_with_their_tokens(make: Make, model: LanguageModel, text: CorpusConfig):
    truth = expected(model, text, SITE, gradient=True)
    for batch in first(make(Feed(SITE, gradients=True)), 12):
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
        assert same(next(one)[0], walked[i])
        assert same(next(two)[0], walked[12 + i])


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
    (sample,) = make(Feed(SITE, (LATER,), gradients=True)).sample(1500)
    assert len(sample) == 1500
    assert sample.tokens[:1000].unique().numel() == 1000
    assert ((sample.tokens[1:] - sample.tokens[:-1]).abs() == 1).float().mean() < 0.02
    assert torch.equal(sample.x, expected(model, text, SITE)[sample.tokens])
    assert torch.equal(sample.target, expected(model, text, LATER)[sample.tokens])
    assert sample.gradient is not None
    assert torch.equal(sample.gradient, expected(model, text, SITE, gradient=True)[sample.tokens])


def test_a_sample_is_the_same_each_time(make: Make):
    source = make()
    first(source, 3, start=7)
    assert same(source.sample(1500)[0], make().sample(1500)[0])


def test_a_sample_of_more_than_there_is_is_all_there_is(make: Make):
    source = make()
    assert len(source.sample(1_000_000)[0]) == source.n_tokens


def test_origin_says_where_it_comes_from(make: Make, model: LanguageModel, text: CorpusConfig):
    origin = make().origin(0)
    assert (origin.model, origin.model_fingerprint) == (model.name, model.fingerprint)
    assert (origin.corpus, origin.policy, origin.targets) == (text, POLICY, ())


def test_a_pass_is_opened_by_the_directory(harvested: Path, tiny_model: Path, text: CorpusConfig):
    feeds = [Feed(SITE), Feed(LATER)]
    on_disk = open_pass(harvested, "unused", feeds, text, POLICY, buffer=500, device="cpu")
    computed = open_pass(None, str(tiny_model), feeds, text, POLICY, buffer=500, device="cpu")
    assert isinstance(on_disk, ShardReader)
    assert isinstance(computed, ActivationStream)
    assert [on_disk.origin(i) for i in (0, 1)] == [computed.origin(i) for i in (0, 1)]


def test_a_source_is_the_only_feed_of_a_pass(harvested: Path, text: CorpusConfig, make: Make):
    options = {"targets": [str(LATER)], "gradients": True, "buffer": 1000, "device": "cpu"}
    source = open_source(harvested, "unused", str(SITE), text, POLICY, **options)  # type: ignore[arg-type]
    alone = open_pass(
        harvested, "unused", [Feed(SITE, (LATER,), gradients=True)], text, POLICY, buffer=1000, device="cpu"
    )  # fmt: skip
    assert (source.origin, source.d_in, source.d_out) == (alone.origin(0), alone.d_in(0), alone.d_out(0))
    assert source.n_tokens == alone.n_tokens
    assert identical(next(source.batches(96, 1, start=7)), next(alone.batches(96, 1, start=7))[0])
    assert identical(source.sample(50), alone.sample(50)[0])


def test_the_policy_decides_what_is_delivered(stream: Callable[..., ActivationStream]):
    everything = stream(policy=TokenPolicy(context=32, exclude_first=0, exclude_special=False))
    assert everything.n_tokens is not None
    rows = everything.n_tokens / 32
    without_first = stream(policy=TokenPolicy(context=32, exclude_first=3, exclude_special=False))
    assert without_first.n_tokens == rows * 29


@pytest.fixture
def padded(tmp_path: Path, settings: Callable[..., HarvestConfig], model: LanguageModel, request) -> ActivationPass:
    """Documents apart, in rows that are filled up, with gradients, from either source."""
    feeds, policy = [Feed(SITE, gradients=True)], TokenPolicy(context=32, cross_documents=False, pad=True)
    config = settings(policy=policy, gradients=True, tokens=1600)
    if request.param == "stream":
        return ActivationStream(model, config.corpus, policy, feeds, buffer_tokens=500, rows=8)
    return ShardReader(harvest(config, tmp_path / "padded", model=model), feeds, buffer_tokens=500)


@pytest.mark.parametrize("padded", ["stream", "reader"], indirect=True)
def test_padding_is_not_delivered_and_reaches_no_gradient(padded: ActivationPass, model: LanguageModel):
    origin = padded.origin(0)
    x, gradient = [], []
    for rows in islice(pack(origin.corpus, model.tokenizer, origin.policy, rows=1), 50):  # type: ignore[arg-type]
        n = int(rows.real.sum())
        made = model.activations_and_gradients(rows.ids[:, :n], [SITE])  # as if there were no padding
        x.append(made[0][SITE][rows.keep[:, :n]])
        gradient.append(made[1][SITE][rows.keep[:, :n]])
    (sample,) = padded.sample(1000)
    assert sample.gradient is not None
    assert_close(sample.x, torch.cat(x)[sample.tokens], atol=1e-5, rtol=1e-4)
    assert_close(sample.gradient, torch.cat(gradient)[sample.tokens], atol=1e-5, rtol=1e-4)
