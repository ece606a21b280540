"""Several feeds of one pass: each gets what it would get alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saelab.activations import ActivationPass, ActivationStream, Feed
from saelab.activations.columns import Column
from saelab.errors import UserError
from saelab.models import LanguageModel, Site
from tests.activations.conftest import LATER, SITE
from tests.activations.test_sources import Make, identical

FEEDS = (
    Feed(SITE),
    Feed(LATER),
    Feed(SITE, (LATER,)),
    Feed(LATER, (SITE,)),  # a target that lies before the input
    Feed(SITE, (LATER, SITE)),
    Feed(SITE, (SITE, LATER), gradients=True),
    Feed(LATER, gradients=True),
)


@pytest.fixture(params=["stream", "overlapped", "reader"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.getfixturevalue(request.param)


@pytest.fixture
def alone(make: Make) -> Iterator[Callable[[Feed], ActivationPass]]:
    """A pass of each feed alone; made once."""
    passes: dict[Feed, ActivationPass] = {}

    def of(feed: Feed) -> ActivationPass:
        return passes.setdefault(feed, make(feed))

    yield of
    passes.clear()  # with their threads


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    feeds=st.lists(st.sampled_from(FEEDS), min_size=2, max_size=5),
    start=st.integers(0, 70),
    batch=st.integers(1, 300),
    seed=st.integers(0, 2),
)
def test_a_feed_gets_what_it_would_get_alone(make, alone, feeds: list[Feed], start: int, batch: int, seed: int):
    together = islice(make(*feeds).batches(batch, seed, start), 2)
    apart = [alone(feed).batches(batch, seed, start) for feed in feeds]
    for batches in together:
        assert len(batches) == len(feeds)
        assert all(identical(ours, next(theirs)[0]) for ours, theirs in zip(batches, apart, strict=True))


def test_samples_are_those_of_each_alone(make: Make, alone: Callable[[Feed], ActivationPass]):
    for feed, sample in zip(FEEDS, make(*FEEDS).sample(1200), strict=True):
        assert identical(sample, alone(feed).sample(1200)[0])


def test_several_targets_lie_side_by_side_in_the_feeds_order(make: Make):
    both, swapped, first, second = next(
        make(Feed(SITE, (SITE, LATER)), Feed(SITE, (LATER, SITE)), Feed(SITE), Feed(LATER)).batches(50, seed=0)
    )
    assert torch.equal(both.target, torch.cat([first.x, second.x], dim=1))
    assert torch.equal(swapped.target, torch.cat([second.x, first.x], dim=1))
    assert both.x is swapped.x is first.x


def test_widths(make: Make):
    source = make(Feed(SITE), Feed(SITE, (LATER, SITE)), Feed(LATER, (SITE,)))
    assert [source.d_in(i) for i in range(3)] == [16, 16, 16]
    assert [source.d_out(i) for i in range(3)] == [16, 32, 16]
    assert [source.target_widths(i) for i in range(3)] == [(), (16, 16), (16,)]


def test_a_site_that_several_share_is_held_once(make: Make):
    source = make(*FEEDS)
    next(source.batches(50, seed=0))
    held = source._ring.rows if isinstance(source, ActivationStream) else source._buffer  # type: ignore[attr-defined]
    assert held is not None
    assert set(held.columns) == {Column(site, gradient) for site in (SITE, LATER) for gradient in (False, True)}
    assert all(values.shape == (1000, 16) for values in held.columns.values())


def test_one_forward_pass_serves_all(
    stream: Callable[..., ActivationStream], model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    seen: list[list[Site]] = []
    run = model._run

    def noted(tokens: torch.Tensor, sites: list[Site], **options: object):
        seen.append(list(sites))
        return run(tokens, sites, **options)

    monkeypatch.setattr(model, "_run", noted)
    next(stream(Feed(SITE), Feed(LATER), Feed(SITE, (LATER,))).batches(1000, seed=0))
    assert all(sites == [SITE, LATER] for sites in seen)
    assert len(seen) <= 6  # 1000 kept tokens in passes of 8 rows of 31 or so


def test_heads_of_earlier_layers_change_no_bit(stream: Callable[..., ActivationStream]):
    """Reading them takes another way through attention, which must stay beside the model's own."""
    feeds = [Feed(Site.parse(name)) for name in ("blocks.0.attn.z", "blocks.0.attn.q.head1", "blocks.1.attn.v")]
    feeds += [Feed(SITE), Feed(LATER, (SITE,), gradients=True), Feed(Site.parse("blocks.1.attn.z"), gradients=True)]
    together = next(stream(*feeds).batches(500, seed=3, start=2))
    for feed, batch in zip(feeds, together, strict=True):
        assert identical(batch, next(stream(feed).batches(500, seed=3, start=2))[0]), feed


def test_the_site_itself_as_its_target_is_no_transcoder():
    assert Feed(SITE, (SITE,)) == Feed(SITE)


def test_a_target_named_twice_is_refused():
    with pytest.raises(UserError, match=r"target sites blocks\.1\.mlp_out, blocks\.1\.mlp_out: one is named twice"):
        Feed(SITE, (LATER, LATER))
