"""A pass of several processes: the batches of one, with every activation made once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from saelab.activations import ActivationBatch, ActivationPass, ActivationStream, Feed, HarvestConfig, ShardReader
from saelab.activations.divided import DividedPass
from saelab.activations.harvest import harvest
from saelab.activations.pieces import Pieces
from saelab.activations.shuffle import ShuffledGroups
from saelab.corpora import CorpusConfig
from saelab.models import LanguageModel
from saelab.ranks import Ranks
from saelab.ranks.mesh import meshed
from tests.activations.conftest import LATER, POLICY, SITE
from tests.forks import Group

FEEDS = (Feed(SITE), Feed(LATER, (SITE,)), Feed(SITE, gradients=True))
CASES = [(64, 0, 40), (100, 3, 20), (250, 0, 9), (37, 150, 6)]
"""Batch size, number of the first batch, how many: groups hold 256 rows."""


def passes(activations: dict[str, str], model: str, text: str) -> Iterator[tuple[str, ShuffledGroups]]:
    for name, directory in activations.items():
        yield name, ShardReader(directory, FEEDS, buffer_tokens=256, seed=1)
    loaded, corpus = LanguageModel.load(model), CorpusConfig(source=text)
    yield "stream", ActivationStream(loaded, corpus, POLICY, FEEDS, buffer_tokens=256, rows=4, overlap=False)


def digest(batches: tuple[ActivationBatch, ...]) -> str:
    content = hashlib.sha256()
    for batch in batches:
        for tensor in (batch.x, batch.target, batch.gradient, batch.tokens):
            if tensor is not None:
                content.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return content.hexdigest()


def delivered(source: ActivationPass) -> list[str]:
    batches = [digest(b) for size, start, n in CASES for b in islice(source.batches(size, 5, start), n)]
    return [digest(source.sample(16)), *batches, digest(source.sample(600))]


def by_one(activations: dict[str, str], model: str, text: str) -> dict[str, list[str]]:
    return {name: delivered(source) for name, source in passes(activations, model, text)}


def by_ranks(ranks: Ranks, activations: dict[str, str], model: str, text: str) -> str:
    torch.set_num_threads(1)
    with meshed(ranks, ranks.size, 1) as mesh:
        found = passes(activations, model, text)
        return json.dumps({name: delivered(DividedPass(source, mesh, until=10**4)) for name, source in found})


@pytest.fixture(scope="module")
def data(
    tiny_model: Path, text: CorpusConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, str], str, str]:
    """Harvests as they may be stored, the model, the text."""
    folder = tmp_path_factory.mktemp("stored")
    made: dict[str, str] = {}
    for dtype in ("fp32", "bf16", "int8"):
        settings: dict[str, Any] = {
            "model": str(tiny_model), "sites": [str(SITE), str(LATER)], "gradients": True, "corpus": text,
            "policy": POLICY, "tokens": 6400, "shard_tokens": 1024, "batch": 8, "dtype": dtype, "device": "cpu",
        }  # fmt: skip
        made[dtype] = str(harvest(HarvestConfig(**settings), folder / dtype))
    return made, str(tiny_model), text.source


@pytest.mark.parametrize("size", [2, 3])
def test_every_batch_is_that_of_one_process(data: tuple[dict[str, str], str, str], size: int, tmp_path: Path) -> None:
    expected = by_one(*data)
    for how, value in Group(tmp_path, size, by_ranks, *data).wait():
        assert how == "done", value
        found = json.loads(value)
        assert {name: [a == b for a, b in zip(found[name], expected[name], strict=True)] for name in expected} == {
            name: [True] * len(digests) for name, digests in expected.items()
        }


def work_done(ranks: Ranks, activations: dict[str, str], model: str, text: str) -> str:
    """Rows that this rank read of a harvest, and kept tokens that its model saw, for 30 batches that end in a group."""
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    read, made = ShardReader._rows, Pieces.made

    def counted_rows(self: ShardReader, shard: int, first: int, stop: int) -> Any:
        counts["read"] += stop - first
        return read(self, shard, first, stop)

    def counted_pieces(self: Pieces, start: Any, wanted: int) -> Any:
        for piece in made(self, start, wanted):
            counts["made"] += len(piece.rows)
            yield piece

    ShardReader._rows, Pieces.made = counted_rows, counted_pieces
    with meshed(ranks, 1, ranks.size) as mesh:
        for name, source in passes({"bf16": activations["bf16"]}, model, text):
            divided = DividedPass(source, mesh, until=32 * 32)
            for _ in islice(divided.batches(32, 5), 32):  # groups 0 to 3, all of the fourth
                pass
            counts[f"{name} received"] = mesh.received["batches"] - counts["stream received"] - counts["bf16 received"]
    return json.dumps(counts)


def test_every_activation_is_made_once(data: tuple[dict[str, str], str, str], tmp_path: Path) -> None:
    ends = Group(tmp_path, 3, work_done, *data).wait()
    counts = [json.loads(value) for how, value in ends]
    assert sum(count["read"] for count in counts) == 4 * 256
    assert [count["read"] for count in counts] == [512, 256, 256]
    one = 4 * 256 + 4 * 127  # a forward pass of 4 · 32 tokens may reach into the next group
    assert 4 * 256 <= sum(count["made"] for count in counts) <= one
    # Token numbers of 8 bytes; x of two sites and one gradient of 16 numbers; each padded to 512 bytes.
    stored, float32 = 512 + 2 * 1024 + 1024, 512 + 3 * 2048
    assert [count["bf16 received"] for count in counts] == [16 * stored, 24 * stored, 24 * stored]
    assert [count["stream received"] for count in counts] == [16 * float32, 24 * float32, 24 * float32]
