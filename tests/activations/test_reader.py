"""Reading shards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from saelab.activations import Feed, ShardReader
from saelab.activations.harvest import harvest
from saelab.activations.reader import BLOCK
from saelab.errors import UserError
from saelab.models import LanguageModel, Site
from tests.activations.conftest import SITE
from tests.activations.test_harvest import unfinish


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
    unfinish(out, 2)
    with pytest.raises(UserError, match="unfinished harvest"):
        ShardReader(out, [Feed(SITE)])


def test_missing_and_damaged_shards_are_named(tmp_path: Path, harvested: Path):
    out = Path(shutil.copytree(harvested, tmp_path / "copy"))
    shard = out / str(SITE) / "x-00004.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"x-00004\.safetensors is damaged"):
        ShardReader(out, [Feed(SITE)]).sample(6400)
    shard.unlink()
    with pytest.raises(UserError, match=r"shard 4: .* is missing"):
        ShardReader(out, [Feed(SITE)])


def anonymous_kib() -> int:
    """Memory of this process that is not a mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_data(tmp_path: Path, harvested: Path):
    """An epoch of 100 times the data, 40 MB, leaves the reader as small as an epoch of the data itself."""
    out = Path(shutil.copytree(harvested, tmp_path / "large"))
    content = json.loads((out / "manifest.json").read_text())
    for number in range(7, 700):
        for folder, prefix in ((out, "tokens"), (out / str(SITE), "x")):
            os.link(folder / f"{prefix}-{number % 7:05d}.safetensors", folder / f"{prefix}-{number:05d}.safetensors")
    content["shards"] *= 100
    (out / "manifest.json").write_text(json.dumps(content))
    grown: list[int] = []
    for directory in (harvested, out):
        source = ShardReader(directory, [Feed(SITE)], buffer_tokens=4096)
        before = anonymous_kib()
        for (batch,) in islice(source.batches(1024, seed=0), source.n_tokens // 1024):
            assert batch.x.shape == (1024, 16)
        grown.append(anonymous_kib() - before)
    assert grown[1] < grown[0] + 4096
