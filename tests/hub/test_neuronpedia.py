"""The export for Neuronpedia, held against the feature index that it was made from."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from saelab.errors import UserError
from saelab.features.index import FeatureIndex
from saelab.hub.neuronpedia.export import export
from saelab.hub.neuronpedia.rows import Activation, Feature, Model, Release, Row, Source, SourceSet
from saelab.hub.open import load
from tests.hub.conftest import run_cli


@pytest.fixture(scope="module")
def indexed(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Path(shutil.copytree(evaluated, tmp_path_factory.mktemp("indexed") / "small"))
    run_cli("index", run, "--tokens", 2048, "--device", "cpu")
    return run


@pytest.fixture(scope="module")
def folder(indexed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "export"
    return export(indexed, out, model_id="tiny", source_set="res-test", release="test", repo="alice/tiny")


def lines(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().splitlines()]


def test_the_folder_is_laid_out_as_the_import_wants_it(folder: Path) -> None:
    assert folder.parts[-2:] == ("tiny", "0-res-test")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "activations/batch-0.jsonl.gz", "features/batch-0.jsonl.gz", "model.jsonl", "release.jsonl", "source.jsonl",
        "sourceset.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "row"), [("release", Release), ("model", Model), ("sourceset", SourceSet), ("source", Source)]
)
def test_one_row_says_what_it_is(folder: Path, name: str, row: type[Row]) -> None:
    [line] = lines(folder / f"{name}.jsonl")
    row.model_validate(line)


def test_every_latent_has_a_feature_with_the_index_s_numbers(folder: Path, indexed: Path) -> None:
    index, rows = FeatureIndex(indexed / "features"), lines(folder / "features" / "batch-0.jsonl.gz")
    directions = load(indexed).decoder_directions().numpy()
    assert [row["index"] for row in rows] == [str(i) for i in range(index.d_sae)]
    for latent, row in enumerate(rows):
        feature, known = Feature.model_validate(row), index.latent(latent)
        assert feature.frac_nonzero == known.density
        assert feature.maxActApprox == pytest.approx(known.max_activation or 0)
        assert np.allclose(feature.vector, directions[latent], rtol=1e-5)
        assert sum(feature.freq_hist_data_bar_heights) == known.n_active
        assert feature.pos_str == [index.vocabulary[one.id] for one in index.logits(latent).promoted]
        assert feature.neuron_alignment_indices[0] == int(np.abs(directions[latent]).argmax())
        assert feature.layer == "0-res-test"
        assert feature.hookName == "blocks.0.hook_resid_post"


def test_examples_are_those_of_the_index(folder: Path, indexed: Path) -> None:
    index, rows = FeatureIndex(indexed / "features"), lines(folder / "activations" / "batch-0.jsonl.gz")
    assert len({row["id"] for row in rows}) == len(rows) > 0
    by_latent: dict[int, list[Activation]] = {}
    for row in rows:
        by_latent.setdefault(int(row["index"]), []).append(Activation.model_validate(row))
    for latent, found in by_latent.items():
        known, examples = index.latent(latent), index.examples(latent)
        assert len(found) == len(examples)
        assert found[0].maxValue == pytest.approx(known.max_activation, rel=1e-5)
        assert found[0].binMin is None
        for one in found:
            if one.binMin is not None and one.binMax is not None:
                at = one.values[one.qualifyingTokenIndex]
                assert one.binMin * (1 - 1e-5) <= at <= one.binMax * (1 + 1e-5)
    quarters = {one.binMax: one.binContains for one in by_latent[max(by_latent, key=lambda i: len(by_latent[i]))]}
    assert sum(share or 0 for share in quarters.values()) <= 1 + 1e-9


def test_rows_that_contradict_themselves_are_refused(folder: Path) -> None:
    good = lines(folder / "activations" / "batch-0.jsonl.gz")[0]
    for change in ({"values": good["values"][:-1]}, {"maxValue": 1e9}, {"strange": 1}, {"minValue": float("nan")}):
        with pytest.raises(ValidationError):
            Activation.model_validate(good | change)


def test_without_an_index_there_is_nothing_to_export(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="saelab index"):
        export(evaluated, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("neuronpedia", indexed, tmp_path / "out", "--model-id", "tiny")
    assert "0-res-small" in capsys.readouterr().out
