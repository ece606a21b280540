"""`saelab calibrate` on a run that `saelab train` left, and what the other commands say of it afterwards."""

from pathlib import Path

import pytest

from saelab.cli.inspect import describe
from saelab.dictionaries.artifact import load


@pytest.fixture(scope="module")
def trained(small: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from saelab import cli

    directory = tmp_path_factory.mktemp("runs") / "mutual"
    words = ["train", *small, "--sae.preset", "mutual-choice", "--out", directory]
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    assert stop.value.code == 0
    return directory


def test_nothing_is_written_unasked(saelab, trained: Path) -> None:
    before = load(trained).config
    code, out, _ = saelab("calibrate", trained, "--tokens", "2k", "--device", "cpu")
    assert code == 0
    assert "where k = 4" in out
    assert "nothing was written" in out
    assert load(trained).config == before
    assert "calibrated" not in dict(describe(trained))["thresholds"]


def test_written_and_restored(saelab, trained: Path) -> None:
    before = load(trained).config
    assert saelab("calibrate", trained, "--tokens", "2k", "--write").code == 0
    assert load(trained).config.weights_sha256 != before.weights_sha256
    assert "calibrated since training" in dict(describe(trained))["thresholds"]
    code, out, _ = saelab("calibrate", trained, "--restore")
    assert code == 0
    assert "thresholds of its training again" in out
    assert load(trained).config == before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--write", "--restore"], "exclude each other"),
        (["--restore"], "nothing to restore"),
        (["--method", "latent"], "one threshold for all latents"),
        (["--tokens", "many"], "tokens"),
        (["other"], "one run at a time"),
    ],
)
def test_what_can_not_be_is_one_sentence(saelab, trained: Path, words: list[str], complaint: str) -> None:
    code, _, err = saelab("calibrate", trained, *words)
    assert code == 2
    assert complaint in err


def test_a_run_is_needed(saelab, tmp_path: Path, finished: Path) -> None:
    assert saelab("calibrate").code == 2
    assert "does not exist" in saelab("calibrate", tmp_path / "nowhere").err
    assert "has no thresholds" in saelab("calibrate", finished).err
