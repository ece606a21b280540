"""Who can share a pass."""

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelab.activations.source import Feed
from saelab.config import load_config
from saelab.models import Site
from saelab.training.config import TrainConfig
from saelab.training.passes import feed_of, shared_passes


class Member(NamedTuple):
    config: TrainConfig


def member(**overrides: Any) -> Member:
    return Member(load_config(TrainConfig, None, {"sae.d_sae": 64, "sae.k": 4} | overrides))


SITE = Site.parse("blocks.2.resid_post")


@pytest.mark.parametrize(
    ("overrides", "feed"),
    [
        ({}, Feed(SITE)),
        ({"sae.preset": "gradient"}, Feed(SITE, gradients=True)),
        ({"target": "blocks.3.mlp_out"}, Feed(SITE, (Site.parse("blocks.3.mlp_out"),))),
    ],
)
def test_what_a_training_wants(overrides: dict[str, Any], feed: Feed) -> None:
    assert feed_of(member(**overrides).config) == feed


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        ({"sae.k": 8, "optimizer.lr": 1, "tokens": "20M", "site": "blocks.1.resid_post", "log_every": 1}, 1),
        ({"seed": 1}, 2),
        ({"seed": 1, "shuffle_seed": 0}, 1),
        ({"batch": 2048}, 2),
        ({"buffer": "1M"}, 2),
        ({"policy.context": 64}, 2),
        ({"corpus.source": "demo"}, 2),
        ({"model": "gpt2"}, 2),
        ({"dtype": "bfloat16"}, 2),
        ({"device": "cpu"}, 2),
        ({"activations": "a"}, 2),
    ],
)
def test_who_shares(overrides: dict[str, Any], passes: int) -> None:
    assert len(shared_passes([member(), member(**overrides)])) == passes


def test_harvested_activations_bring_their_own_model_and_text() -> None:
    apart = {"model": "gpt2", "corpus.source": "demo", "policy.context": 64}
    assert len(shared_passes([member(activations="a"), member(activations="a", **apart)])) == 1


def test_equal_wishes_are_one_feed() -> None:
    (shared,) = shared_passes([member(), member(**{"sae.k": 8}), member(**{"sae.preset": "gradient"})])
    assert shared.feeds == (Feed(SITE), Feed(SITE, gradients=True))
    assert [shared.feed(each) for each in shared.members] == [0, 0, 1]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=9), st.integers(1, 10) | st.none())
def test_every_member_is_in_one_pass(seeds: list[int], together: int | None) -> None:
    members = {seed: member(seed=seed) for seed in set(seeds)}
    passes = shared_passes([members[seed] for seed in seeds], together)
    assert sorted(each.config.seed for shared in passes for each in shared.members) == sorted(seeds)
    assert all(len({each.config.seed for each in shared.members}) == 1 for shared in passes)
    assert max(len(shared.members) for shared in passes) <= (together or 10)
    least = sum(-(-seeds.count(seed) // (together or 10)) for seed in members)
    assert len(passes) == least
