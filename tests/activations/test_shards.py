"""One shard: what is counted while it is collected, and what lies in its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saelab.activations import Feed, HarvestConfig, Manifest, ShardReader
from saelab.activations.columns import Column
from saelab.activations.harvest import harvest
from saelab.activations.shards import ShardBuffer, shard_statistics, shard_storage_error
from saelab.activations.stored import decode
from saelab.activations.subsample import drawn
from saelab.corpora.rows import Cursor, TokenRows
from saelab.disk import ActivationPaths
from saelab.errors import UserError
from saelab.models import LanguageModel
from tests.activations.conftest import LATER, SITE

Settings = Callable[..., HarvestConfig]
X, GRADIENT = Column(SITE), Column(SITE, gradient=True)


def rows(n: int, context: int = 32, first: int = 0) -> TokenRows:
    """Rows whose first position is left out."""
    zeros = torch.zeros(n, context, dtype=torch.int32)
    excluded = zeros.to(torch.uint8)
    excluded[:, 0] = 2
    return TokenRows(zeros, zeros.long(), zeros, excluded, Cursor(row=first), Cursor(row=first + n))


def test_int8_files_by_hand(tmp_path: Path, settings: Settings):
    buffer = ShardBuffer(settings(dtype="int8", gradients=True), {X: 2, GRADIENT: 2})
    x = torch.zeros(31, 2)
    x[0], x[1] = torch.tensor([127.0, 0.25]), torch.tensor([-254.0, 3.5])
    buffer.add(rows(1), {X: x, GRADIENT: x / 512})
    entry = buffer.write(ActivationPaths(tmp_path), 0)
    assert (entry.rows, entry.kept, len(entry.files)) == (1, 31, 3)
    file = load_file(tmp_path / str(SITE) / "x-00000.safetensors")
    assert file["x"].dtype == torch.int8
    assert file["x"][:2].tolist() == [[127, 0], [-127, 2]]
    assert file["row_scale"][:3].tolist() == [1.0, 2.0, 0.0]
    # Stored are (127, 0) and (-254, 4): they differ by 0.25 and 0.5.
    assert file["sum"].tolist() == [127.0 - 254.0, 4.0]
    assert file["sum_of_squares"].item() == 127.0**2 + 254.0**2 + 16.0
    assert shard_statistics(tmp_path / str(SITE) / "x-00000.safetensors")[1].item() == file["sum_of_squares"].item()
    error, computed = shard_storage_error(tmp_path / str(SITE) / "x-00000.safetensors")
    assert (error, computed) == (0.25**2 + 0.5**2, 127.0**2 + 0.25**2 + 254.0**2 + 3.5**2)
    gradient = load_file(tmp_path / str(SITE) / "grad-00000.safetensors")
    assert set(gradient) == {"grad"}
    assert torch.equal(gradient["grad"], (x / 512).bfloat16())


@pytest.mark.parametrize(("dtype", "error"), [("fp32", 0.0), ("bf16", 2.0**-20), ("fp16", 0.0)])
def test_the_error_of_other_types(tmp_path: Path, settings: Settings, dtype, error: float):
    """1 + 2⁻¹⁰ is a number in fp16 and in bf16 becomes 1."""
    buffer = ShardBuffer(settings(dtype=dtype), {X: 1})
    buffer.add(rows(1), {X: torch.full((31, 1), 1 + 2.0**-10)})
    buffer.write(ActivationPaths(tmp_path), 0)
    found, computed = shard_storage_error(tmp_path / str(SITE) / "x-00000.safetensors")
    assert found == pytest.approx(31 * error, rel=1e-12)
    assert computed == pytest.approx(31 * (1 + 2.0**-10) ** 2, rel=1e-12)


def test_a_model_of_the_stored_type_loses_nothing(tmp_path: Path, settings: Settings):
    buffer = ShardBuffer(settings(dtype="bf16"), {X: 3})
    buffer.add(rows(1), {X: torch.randn(31, 3).bfloat16()})
    buffer.write(ActivationPaths(tmp_path), 0)
    assert shard_storage_error(tmp_path / str(SITE) / "x-00000.safetensors")[0] == 0


def test_a_harvest_says_what_storing_took(tmp_path: Path, settings: Settings, model: LanguageModel, harvested: Path):
    out = harvest(settings(dtype="int8"), tmp_path / "int8", model=model)
    exact = Manifest.load(harvested).sites[str(SITE)].storage_error
    assert exact == 0.0
    x, stored = [], []
    for number in range(7):
        x.append(load_file(ActivationPaths(harvested).activations(str(SITE), number))["x"].double())
        file = load_file(ActivationPaths(out).activations(str(SITE), number))
        stored.append(decode(file["x"], file["row_scale"]).double())
    computed, read = torch.cat(x), torch.cat(stored)
    entry = Manifest.load(out).sites[str(SITE)]
    assert entry.storage_error == pytest.approx(
        ((computed - read).square().sum() / computed.square().sum()).item(), rel=1e-6
    )
    assert entry.storage_error is not None
    assert 1e-6 < entry.storage_error < 1e-4
    assert entry.scale == pytest.approx((16 / read.square().sum(1).mean().item()) ** 0.5, rel=1e-9)


def test_a_reader_gives_what_int8_stands_for(tmp_path: Path, settings: Settings, model: LanguageModel):
    out = harvest(settings(dtype="int8", gradients=True), tmp_path / "int8", model=model)
    source = ShardReader(out, [Feed(SITE, (LATER,), gradients=True)], buffer_tokens=1000)
    files = [load_file(ActivationPaths(out).activations(str(SITE), number)) for number in range(7)]
    stored = torch.cat([decode(file["x"], file["row_scale"]) for file in files])
    (batch,) = next(source.batches(96, seed=0, start=30))
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, stored[batch.tokens])
    assert source._buffer is not None
    assert source._buffer.columns[Column(SITE)].dtype == torch.int8  # a quarter of the memory


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", ["int8", "bf16", "fp16", "fp32"])
def test_what_is_not_finite_is_refused(tmp_path: Path, settings: Settings, dtype, value: float):
    buffer = ShardBuffer(settings(dtype=dtype), {X: 2})
    x = torch.ones(31, 2)
    x[7, 1] = value
    buffer.add(rows(1), {X: x})
    with pytest.raises(UserError, match=r"activations at blocks\.0\.resid_post are not finite"):
        buffer.write(ActivationPaths(tmp_path), 0)
    assert not any(tmp_path.iterdir())


def test_subsampling_stores_the_drawn_tokens(tmp_path: Path, settings: Settings, model: LanguageModel, harvested: Path):
    whole = Manifest.load(harvested)
    out = harvest(settings(subsample=0.3), tmp_path / "some", model=model)
    manifest = Manifest.load(out)
    kept, x = [], []
    for number in range(7):
        before = load_file(ActivationPaths(harvested).tokens(number))
        after = load_file(ActivationPaths(out).tokens(number))
        context = before["keep"].view(-1, 32)
        first = TokenRows(context, context, context, context, Cursor(row=int(before["row"][0])), Cursor())
        chosen = drawn(first, 0.3, seed=settings().corpus.seed).flatten()
        assert torch.equal(after["keep"], before["keep"] & chosen)
        assert torch.equal(after["ids"], before["ids"])
        kept.append(int(after["keep"].sum()))
        x.append(load_file(ActivationPaths(harvested).activations(str(SITE), number))["x"][chosen[before["keep"]]])
    stored = [load_file(ActivationPaths(out).activations(str(SITE), number))["x"] for number in range(7)]
    assert torch.equal(torch.cat(stored), torch.cat(x))
    assert [shard.kept for shard in manifest.shards] == kept
    assert (manifest.n_tokens, manifest.n_kept) == (whole.n_tokens, sum(kept))
    for shard in manifest.shards:
        assert shard.kept + sum(shard.excluded.values()) == shard.rows * 32
    assert sum(shard.excluded["sampled"] for shard in manifest.shards) == whole.n_kept - manifest.n_kept
    assert ShardReader(out, [Feed(SITE)], buffer_tokens=500).n_tokens == sum(kept)


def test_the_draw_does_not_depend_on_batches_or_shards(tmp_path: Path, settings: Settings, model: LanguageModel):
    parts = []
    for name, changes in {"a": {}, "b": {"batch": 3, "shard_tokens": 500}}.items():
        out = harvest(settings(subsample=0.2, **changes), tmp_path / name, model=model)
        shards = range(len(Manifest.load(out).shards))
        parts.append(torch.cat([load_file(ActivationPaths(out).tokens(number))["keep"] for number in shards]))
    assert torch.equal(parts[0], parts[1])


def test_a_draw_of_more_than_one_may_expect_finds_room(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saelab.activations.shards.most_drawn", lambda tokens, share: 10)
    config = settings(dtype="int8")
    small, x = ShardBuffer(config, {X: 2}), torch.randn(2, 31, 2)
    monkeypatch.undo()
    large = ShardBuffer(config, {X: 2})
    entries = []
    for buffer, name in ((small, "small"), (large, "large")):
        for part in range(2):
            buffer.add(rows(1, first=part), {X: x[part]})
        entries.append(buffer.write(ActivationPaths(tmp_path / name), 0))
    assert entries[0] == entries[1]


def test_a_shard_can_be_filled_again(tmp_path: Path, settings: Settings):
    buffer, x = ShardBuffer(settings(dtype="int8", subsample=0.5), {X: 2}), torch.randn(31, 2)
    entries = []
    for number in range(2):
        buffer.add(rows(1, first=4), {X: x})
        entries.append(buffer.write(ActivationPaths(tmp_path), number))
        buffer.clear()
    assert list(entries[0].files.values()) == list(entries[1].files.values())
    assert 8 < entries[0].kept < 24
