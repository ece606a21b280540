"""How well a shuffle of groups mixes, against the share that docs/protocol.md promises."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.directory import SITE, write_directory
from saelab.activations import Feed, Manifest, ShardReader
from saelab.activations.reader import BLOCK
from saelab.disk import ActivationPaths

TOKENS = 2048 * BLOCK


def documents_of(directory: Path) -> Tensor:
    shards = range(len(Manifest.load(directory).shards))
    return torch.cat([load_file(ActivationPaths(directory).tokens(number))["document"] for number in shards])


def expected_when_shuffled(documents: Tensor, batch: int) -> float:
    """Different documents among `batch` tokens drawn from all: the sum of 1 − (1 − nᵢ/N)^batch."""
    share = documents.bincount().double() / len(documents)
    return float((1 - (1 - share) ** batch).sum())


def promised(blocks: int, batch: int) -> float:
    """Share of a full shuffle's documents: m/n · (1 − (1 − 1/m)ⁿ) for n tokens out of m blocks."""
    return blocks / batch * (1 - (1 - 1 / blocks) ** batch)


@pytest.mark.parametrize("document_tokens", [60, 400, 3000])
def test_batches_hold_as_many_documents_as_promised(tmp_path: Path, document_tokens: int):
    directory = write_directory(tmp_path / "a", TOKENS, 1, document_tokens=document_tokens)
    documents = documents_of(directory)
    for blocks, batch in ((128, 32), (128, 128), (128, 1024), (512, 512)):
        source = ShardReader(directory, [Feed(SITE)], buffer_tokens=blocks * BLOCK)
        batches = islice(source.batches(batch, seed=1), min(source.n_tokens // batch, 2000))  # an epoch, or much of it
        found = torch.tensor([float(documents[b.tokens].unique().numel()) for (b,) in batches])
        full = expected_when_shuffled(documents, batch)
        spread = 4 * float(found.std()) / len(found) ** 0.5
        assert found.mean() >= promised(blocks, batch) * full - spread, (blocks, batch)
        assert found.mean() <= full + spread


def test_a_group_is_drawn_from_the_whole_directory(tmp_path: Path):
    directory = write_directory(tmp_path / "a", TOKENS, 1)
    source = ShardReader(directory, [Feed(SITE)], buffer_tokens=128 * BLOCK)
    (group,) = next(source.batches(128 * BLOCK, seed=0))
    places = group.tokens[group.tokens % BLOCK == 0] // BLOCK
    assert len(places) == 128
    quarters = torch.histc(places.double(), 4, min=0, max=2048)
    assert (quarters - 32).abs().max() < 4 * (128 * 0.25 * 0.75) ** 0.5  # four standard deviations of a binomial


def test_tokens_of_one_block_are_spread_over_their_group(tmp_path: Path):
    """Of 256 neighbours a batch of an eighth of the group gets 32 on average, and no batch gets many more."""
    directory = write_directory(tmp_path / "a", TOKENS, 1)
    source = ShardReader(directory, [Feed(SITE)], buffer_tokens=64 * BLOCK)
    for (batch,) in islice(source.batches(8 * BLOCK, seed=0), 8):
        counts = (batch.tokens // BLOCK).bincount()
        counts = counts[counts > 0]
        assert len(counts) == 64
        assert counts.max() < 32 + 6 * (32 * 7 / 8) ** 0.5
