"""Reading shards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.directory import write_directory
from saelab.activations import Feed, ShardReader
from saelab.activations.harvest import harvest
from saelab.activations.reader import BLOCK
from saelab.errors import UserError
from saelab.models import LanguageModel, Site
from tests.activations.conftest import LATER, SITE
from tests.activations.test_harvest import unfinish
from tests.activations.test_sources import identical
from tests.forks import PROCESSES


def test_an_epoch_delivers_every_kept_token_once(reader: Callable[..., ShardReader]):
    source = reader()
    batches = islice(source.batches(100, seed=5), source.n_tokens * 2 // 100)
    tokens = torch.cat([batch.tokens for (batch,) in batches])
    assert torch.equal(tokens[: source.n_tokens].sort().values, torch.arange(source.n_tokens))
    assert not torch.equal(tokens[:1000], tokens[source.n_tokens : source.n_tokens + 1000])


def test_a_group_mixes_as_many_places_as_it_claims(reader: Callable[..., ShardReader]):
    """A buffer of 8 blocks holds tokens of at least 8 blocks of the text, and they lie far apart."""
    source = reader(buffer_tokens=8 * BLOCK)
    tokens = next(source.batches(8 * BLOCK, seed=0))[0].tokens
    places = (tokens // BLOCK).unique()
    assert len(places) >= 8
    assert (places[1:] - places[:-1] > 1).any()


def test_scale_is_the_manifests(reader: Callable[..., ShardReader]):
    source = reader()
    sample = source.sample(source.n_tokens)[0].x
    assert source.scale(SITE) == pytest.approx((16 / sample.square().sum(1).mean().item()) ** 0.5, rel=1e-5)


def test_what_is_not_there_is_named(tmp_path: Path, harvested: Path, settings, model: LanguageModel):
    with pytest.raises(UserError, match=r"no activations of site blocks\.1\.resid_post; it has blocks\.0"):
        ShardReader(harvested, [Feed(SITE, (Site.parse("blocks.1.resid_post"),))])
    plain = harvest(settings(tokens=320), tmp_path / "plain", model=model)
    with pytest.raises(UserError, match="holds no gradients"):
        ShardReader(plain, [Feed(SITE), Feed(SITE, gradients=True)])
    with pytest.raises(UserError, match="no directory of activations"):
        ShardReader(tmp_path, [Feed(SITE)])


def test_an_unfinished_harvest_is_not_read(tmp_path: Path, harvested: Path):
    out = Path(shutil.copytree(harvested, tmp_path / "copy"))
    unfinish(out, [0, 1])
    with pytest.raises(UserError, match="unfinished harvest"):
        ShardReader(out, [Feed(SITE)])


def test_missing_and_damaged_shards_are_named(tmp_path: Path, harvested: Path):
    out = Path(shutil.copytree(harvested, tmp_path / "copy"))
    shard = out / str(SITE) / "x-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"shard 4: .*x-00004\.safetensors has the wrong length; `saelab harvest"):
        ShardReader(out, [Feed(SITE)]).sample(6400)
    shard.unlink()
    with pytest.raises(UserError, match=r"shard 4: .* is missing"):
        ShardReader(out, [Feed(SITE)])


def test_any_batch_is_reached_by_reading_its_group_alone(
    reader: Callable[..., ShardReader], monkeypatch: pytest.MonkeyPatch
):
    read: list[int] = []
    rows = ShardReader._rows

    def watched(self: ShardReader, shard: int, first: int, stop: int):
        read.append(stop - first)
        return rows(self, shard, first, stop)

    monkeypatch.setattr(ShardReader, "_rows", watched)
    for start in (0, 7, 10**6, 10**12):
        read.clear()
        next(reader().batches(100, seed=0, start=start))
        assert sum(read) <= 2 * 1000  # a batch that begins in one group may end in the next


@pytest.mark.parametrize("limit", [1, 3])
def test_files_that_are_opened_again_change_no_bit(
    reader: Callable[..., ShardReader], monkeypatch: pytest.MonkeyPatch, limit: int
):
    feeds = [Feed(SITE), Feed(LATER, gradients=True)]
    walked = list(islice(reader(*feeds).batches(96, seed=1), 40))
    monkeypatch.setattr("saelab.activations.reader._OPEN_FILES", limit)
    source = reader(*feeds)
    for start in (0, 33):
        for here, there in zip(islice(source.batches(96, seed=1, start=start), 5), walked[start:], strict=False):
            assert all(identical(one, two) for one, two in zip(here, there, strict=True))
    assert len(source._maps) <= 3  # columns of one shard: two sites and a gradient


def digest(directory: Path, start: int, out: Path) -> None:
    """Write a hash of 30 batches of two sites."""
    batches = islice(ShardReader(directory, [Feed(SITE), Feed(LATER)], buffer_tokens=1000).batches(96, 1, start), 30)
    out.write_text(hashlib.sha256(b"".join(b.x.numpy().tobytes() for pair in batches for b in pair)).hexdigest())


def test_processes_share_a_directory(tmp_path: Path, harvested: Path):
    """Two at once, of which one begins elsewhere, read what one alone reads."""
    processes = [PROCESSES.Process(target=digest, args=(harvested, start, tmp_path / f"{start}")) for start in (0, 50)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    for start in (0, 50):
        digest(harvested, start, tmp_path / "alone")
        assert (tmp_path / f"{start}").read_text() == (tmp_path / "alone").read_text()


def watch(directory: Path, out: Path) -> None:
    """Read a little more than an epoch, and write the most memory (KiB) that was this process's alone."""
    source = ShardReader(directory, [Feed(SITE)], buffer_tokens=16384)
    most = 0
    for _ in islice(source.batches(1024, seed=0), source.n_tokens // 1024 + 40):
        lines = Path("/proc/self/status").read_text().splitlines()
        most = max(most, next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
    out.write_text(f"{source.n_tokens} {most}")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_data(tmp_path: Path):
    """A process that reads an epoch of 10 times the data needs no more memory.

    Counted is RssAnon, memory of the process alone. Pages of mapped files are left out: they are the system's cache,
    given up whenever somebody wants the memory, and shared by all who read the directory.
    """
    small = write_directory(tmp_path / "small", 2**17, 32, shard_tokens=2**14)
    large = Path(shutil.copytree(small, tmp_path / "large"))
    content = json.loads((large / "manifest.json").read_text())
    for number in range(8, 80):
        for folder, prefix in ((large, "tokens"), (large / str(SITE), "x")):
            os.link(folder / f"{prefix}-{number % 8:05d}.safetensors", folder / f"{prefix}-{number:05d}.safetensors")
    content["shards"] *= 10
    (large / "manifest.json").write_text(json.dumps(content))

    def watched(directory: Path) -> tuple[int, int]:
        process = PROCESSES.Process(target=watch, args=(directory, tmp_path / "watched"))
        process.start()
        process.join()
        tokens, most = (tmp_path / "watched").read_text().split()
        return int(tokens), int(most)

    tokens, few = watched(small)
    ten_times, many = watched(large)
    assert ten_times == 10 * tokens
    assert few > 16384 * 32 * 4 / 1024  # the buffer is counted
    # Now and then two threads' allocations overlap by some MB; memory that grew with the data would do so every time.
    many = min([many, *(watched(large)[1] for _ in range(2))]) if many >= few + 2048 else many
    assert many < few + 2048  # of 168 MB of activations
