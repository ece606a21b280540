"""A transcoder down the whole road: what is meaningful works, what is not is one sentence."""

from pathlib import Path

import pytest

from saelab.cli.inspect import describe
from saelab.dictionaries.artifact import load
from saelab.disk import RunPaths
from saelab.evaluation.report import FidelityReport, load_report

TARGETS = "[blocks.0.mlp_out, blocks.1.resid_post]"


@pytest.fixture(scope="module")
def transcoder(small: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from saelab import cli

    directory = tmp_path_factory.mktemp("runs") / "transcoder"
    words = ["train", *small, "--site", "blocks.0.resid_mid", "--target", TARGETS, "--out", directory]
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code == 0
    return directory


def test_inspect_says_where_it_writes(transcoder: Path) -> None:
    lines = dict(describe(transcoder))
    assert lines["site"].startswith("blocks.0.resid_mid of")
    assert lines["writes"] == "blocks.0.mlp_out (16 wide), blocks.1.resid_post (16 wide)"


def test_evaluate(saelab, transcoder: Path) -> None:
    code, out, err = saelab("evaluate", transcoder, "--tokens", 320, "--resamples", 10, "--device", "cpu")
    assert code == 0, err
    assert "blocks.0.resid_mid → blocks.0.mlp_out + blocks.1.resid_post" in " ".join(out.split())
    report = load_report(FidelityReport, RunPaths(transcoder).report("fidelity"))
    assert report.about.targets == ("blocks.0.mlp_out", "blocks.1.resid_post")
    assert report.metrics.splice_error is not None
    assert report.metrics.splice_error < 1e-4


def test_index_and_steer(saelab, transcoder: Path) -> None:
    assert saelab("index", transcoder, "--tokens", 500, "--device", "cpu").code == 0
    live = int(load(transcoder).W_dec.norm(dim=1).argmax())
    code, out, err = saelab(
        "steer", transcoder, "--latent", live, "--mode", "zero", "--max-new-tokens", 4, "--prompt", "a"
    )
    assert code == 0, err
    assert "zero" in out
