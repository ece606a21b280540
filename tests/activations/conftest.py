"""A tiny random GPT-2 (2 layers, width 16, context 32, one token per byte) and settings that fit it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from saelab.activations import ActivationStream, Feed, HarvestConfig, ShardReader
from saelab.activations.harvest import harvest
from saelab.corpora import CorpusConfig, TokenPolicy
from saelab.corpora.microworld import Microworld
from saelab.models import LanguageModel, Site

POLICY = TokenPolicy(context=32)
SITE = Site.parse("blocks.0.resid_post")
LATER = Site.parse("blocks.1.mlp_out")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """On tensors this small, threads cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> LanguageModel:
    return LanguageModel.load(tiny_model)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    """A corpus that ends: a hundred documents, 14,000 tokens."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n<|endoftext|>\n".join(Microworld(seed=2).document(i).text for i in range(100)))
    return CorpusConfig(source=str(path))


@pytest.fixture
def settings(tiny_model: Path, text: CorpusConfig) -> Callable[..., HarvestConfig]:
    """Settings of a small harvest: 6,400 tokens in seven shards, the last one short."""

    def make(**changes: Any) -> HarvestConfig:
        defaults: dict[str, Any] = {
            "model": str(tiny_model), "sites": [str(SITE), str(LATER)], "corpus": text, "policy": POLICY,
            "tokens": 6400, "shard_tokens": 1024, "batch": 8, "dtype": "fp32", "device": "cpu",
        }  # fmt: skip
        return HarvestConfig(**{**defaults, **changes})

    return make


@pytest.fixture(scope="session")
def harvested(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, text: CorpusConfig, model: LanguageModel
) -> Path:
    """The same harvest, done, with gradients."""
    config = HarvestConfig(
        model=str(tiny_model), sites=(str(SITE), str(LATER)), corpus=text, policy=POLICY, tokens=6400,
        shard_tokens=1024, batch=8, dtype="fp32", gradients=True, device="cpu",
    )  # fmt: skip
    return harvest(config, tmp_path_factory.mktemp("activations") / "done", model=model)


@pytest.fixture
def stream(model: LanguageModel, text: CorpusConfig) -> Callable[..., ActivationStream]:
    """Streams of the small corpus; every call makes a fresh one."""

    def make(*feeds: Feed, **changes: Any) -> ActivationStream:
        options: dict[str, Any] = {"corpus": text, "policy": POLICY, "buffer_tokens": 1000, "rows": 8, **changes}
        return ActivationStream(
            model, options.pop("corpus"), options.pop("policy"), feeds or (Feed(SITE),), **options
        )  # fmt: skip

    return make


@pytest.fixture
def overlapped(stream: Callable[..., ActivationStream]) -> Callable[..., ActivationStream]:
    """The same with the model in a thread of its own."""
    return partial(stream, overlap=True)


@pytest.fixture
def reader(harvested: Path) -> Callable[..., ShardReader]:
    """Readers of the harvest; every call makes a fresh one."""

    def make(*feeds: Feed, **changes: Any) -> ShardReader:
        return ShardReader(harvested, feeds or (Feed(SITE),), **{"buffer_tokens": 1000, **changes})

    return make
