"""Damaged and missing shards: named, and made again alone, to the same bytes or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from saelab.activations import HarvestConfig, Manifest
from saelab.activations.harvest import harvest
from saelab.activations.ledger import Ledger
from saelab.activations.report import report
from saelab.disk import sha256
from saelab.errors import UserError
from saelab.models import LanguageModel
from tests.activations.conftest import LATER, SITE
from tests.activations.test_resume import contents

Settings = Callable[..., HarvestConfig]


@pytest.fixture
def copy(harvested: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(harvested, tmp_path / "copy"))


def flip(path: Path, at: int = -5) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def seen(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that the model will be given from now on."""
    rows: list[int] = []
    run = model.activations_and_gradients
    monkeypatch.setattr(
        model, "activations_and_gradients", lambda ids, *a, **k: (rows.append(len(ids)), run(ids, *a, **k))[1]
    )
    return rows


def test_only_what_is_damaged_is_made_again(
    copy: Path, harvested: Path, settings: Settings, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    flip(copy / f"{SITE}/x-00003.safetensors")
    (copy / "tokens-00001.safetensors").unlink()
    (copy / f"{LATER}/grad-00006.safetensors").write_bytes(b"torn")
    rows = seen(model, monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.safetensors")}
    harvest(settings(gradients=True), copy, model=model, repair=True)
    assert contents(copy) == contents(harvested)
    assert sum(rows) == 32 + 32 + 8  # shards 1, 3 and the short last one
    changed = {path.name for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"x-00003.safetensors", "grad-00006.safetensors"}


def test_what_is_missing_or_cut_short_needs_no_option(
    copy: Path, harvested: Path, settings: Settings, model: LanguageModel
):
    shard = copy / f"{SITE}/x-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    (copy / f"{LATER}/x-00004.safetensors").unlink()
    harvest(settings(gradients=True), copy, model=model)
    assert contents(copy) == contents(harvested)


def test_a_whole_directory_stays_as_it_is(
    copy: Path, settings: Settings, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.*")}
    monkeypatch.setattr("saelab.activations.harvest.load_model", None)
    harvest(settings(gradients=True), copy, repair=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


class _Elsewhere:
    """The same model on a machine that rounds differently."""

    def __init__(self, model: LanguageModel, by: float) -> None:
        self.model, self.by = model, by

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def activations_and_gradients(self, *arguments, **options):
        made = self.model.activations_and_gradients(*arguments, **options)
        return tuple({site: values * (1 + self.by) for site, values in each.items()} for each in made)

    def activations(self, *arguments):
        return {site: values * (1 + self.by) for site, values in self.model.activations(*arguments).items()}


def test_another_machines_rounding_is_accepted_and_recorded(
    copy: Path, harvested: Path, settings: Settings, model: LanguageModel
):
    name = f"{SITE}/x-00003.safetensors"
    flip(copy / name)
    harvest(settings(gradients=True), copy, model=_Elsewhere(model, 1e-5), repair=True)  # type: ignore[arg-type]
    manifest, before = Manifest.load(copy), Manifest.load(harvested)
    assert manifest.damage(copy) == []
    assert [number for number, shard in enumerate(manifest.shards) if shard != before.shards[number]] == [3]
    assert manifest.shards[3].rounding == pytest.approx(1e-5, rel=0.01)
    assert {n for n in manifest.shards[3].files if manifest.shards[3].files[n] != before.shards[3].files[n]} == {name}
    x = torch.cat([load_file(copy / str(SITE) / f"x-{i:05d}.safetensors")["x"] for i in range(7)]).double()
    assert manifest.sites[str(SITE)].scale == pytest.approx((16 / x.square().sum(1).mean().item()) ** 0.5, rel=1e-12)
    squares = x[sum(s.kept for s in manifest.shards[:3]) :][: manifest.shards[3].kept].square().sum().item()
    assert manifest.shards[3].squares[str(SITE)] == pytest.approx(squares, rel=1e-12)
    assert "shard 3, by a machine that rounds differently (by up to 1.0e-05)" in dict(report(Ledger(copy))).values()


def test_other_values_are_refused_and_nothing_is_changed(copy: Path, settings: Settings, model: LanguageModel):
    (copy / f"{SITE}/x-00003.safetensors").unlink()
    before = contents(copy)
    with pytest.raises(UserError, match=r"shard 3 of .* can't be made again: .* different by 5\.0e-02"):
        harvest(settings(gradients=True), copy, model=_Elsewhere(model, 0.05))  # type: ignore[arg-type]
    assert contents(copy) == before


@pytest.mark.parametrize(("by", "passes"), [(1e-4, True), (0.01, False)])
def test_where_no_file_is_left_the_sum_of_squares_decides(
    tmp_path: Path, settings: Settings, model: LanguageModel, by: float, passes: bool
):
    config = settings(sites=[str(SITE)], tokens=1000)
    out = harvest(config, tmp_path / "a", model=model)
    (out / f"{SITE}/x-00000.safetensors").unlink()
    elsewhere = _Elsewhere(model, by)
    if passes:
        harvest(config, out, model=elsewhere)  # type: ignore[arg-type]
        assert Manifest.load(out).shards[0].rounding == pytest.approx(2 * by, rel=0.01)
    else:
        with pytest.raises(UserError, match="can't be made again"):
            harvest(config, out, model=elsewhere)  # type: ignore[arg-type]


def test_another_text_is_refused(tmp_path: Path, settings: Settings, model: LanguageModel, text):
    source = tmp_path / "text.txt"
    source.write_text(Path(text.source).read_text())
    config = settings(corpus=text.model_copy(update={"source": str(source)}))
    out = harvest(config, tmp_path / "a", model=model)
    (out / f"{SITE}/x-00003.safetensors").unlink()
    source.write_text(source.read_text().replace("a", "o"))
    with pytest.raises(UserError, match=r"shard 3 of .* can't be made again: the text gives other tokens"):
        harvest(config, out, model=model)
    source.write_text(source.read_text()[:2000])
    with pytest.raises(UserError, match=r"shard 3 of .* can't be made again: corpus .* ends before it"):
        harvest(config, out, model=model)


def test_a_directory_of_version_1_is_read_and_repaired(copy: Path, harvested: Path, settings: Settings, model):
    """As saelab wrote it before there were reasons, errors and sums of squares."""
    content = json.loads((copy / "manifest.json").read_text()) | {"schema_version": 1}
    del content["left_over"]
    for shard in content["shards"]:
        for key in ("excluded", "dropped", "squares", "rounding"):
            del shard[key]
        for name in shard["files"]:
            if "/x-" in name:
                tensors = load_file(copy / name)
                save_file({key: tensors[key] for key in ("x", "sum", "sum_of_squares")}, copy / name)
                shard["files"][name] = sha256(copy / name)
    for site in content["sites"].values():
        del site["storage_error"]
    (copy / "manifest.json").write_text(json.dumps(content))
    config = settings(gradients=True)
    harvest(config, copy, model=model, repair=True)
    assert json.loads((copy / "manifest.json").read_text()) == content
    (copy / f"{SITE}/x-00003.safetensors").unlink()
    harvest(config, copy, model=model)
    manifest = Manifest.load(copy)
    assert (manifest.schema_version, manifest.damage(copy)) == (2, [])
    assert manifest.sites[str(SITE)].mean == Manifest.load(harvested).sites[str(SITE)].mean
    assert torch.equal(*(load_file(d / f"{SITE}/x-00003.safetensors")["x"] for d in (copy, harvested)))


def test_a_version_1_harvest_that_was_killed_goes_on(
    copy: Path, harvested: Path, settings: Settings, model: LanguageModel
):
    """It listed its finished shards in the manifest."""
    content = json.loads((copy / "manifest.json").read_text()) | {"schema_version": 1, "finished": False}
    content |= {"shards": content["shards"][:3], "next": content["shards"][3]["start"], "left_over": None}
    (copy / "manifest.json").write_text(json.dumps(content))
    for number in range(3, 7):
        for path in copy.rglob(f"*-{number:05d}.safetensors"):
            path.unlink()
    assert contents(harvest(settings(gradients=True), copy, model=model)) == contents(harvested)
