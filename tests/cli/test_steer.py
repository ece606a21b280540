"""`saelab steer`: a run and options, or settings in a file, or both."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def few(finished: Path) -> list[str]:
    return ["steer", str(finished), "--max-new-tokens", "4", "--unit-tokens", "512", "--device", "cpu"]


def test_options_of_every_kind(saelab, few) -> None:
    code, out, _ = saelab(
        *few,
        "--latent",
        "1",
        "--latent",
        "2",
        "--mode",
        "zero",
        "--prompt",
        "yes",
        "--positions",
        "-1:",
        "--samples",
        "2",
    )
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("──")] == [
        "── as it is · seed 0", "── as it is · seed 1", "── zero · seed 0", "── zero · seed 1",
    ]  # fmt: skip
    assert out.count("\nyes") == 4  # a prompt is text, whatever YAML makes of the word


def test_a_file_of_settings_gives_way_to_options(saelab, finished: Path, tmp_path: Path) -> None:
    settings = {
        "run": str(finished), "latent": [3], "mode": "zero", "positions": "-1:", "prompt": "12", "max_new_tokens": 4,
        "unit_tokens": 512, "device": "cpu", "samples": 2,
    }  # fmt: skip
    file = tmp_path / "steering.json"
    file.write_text(json.dumps(settings))
    code, alone, _ = saelab("steer", str(file))
    assert code == 0
    assert alone.count("\n12") == 4
    code, out, _ = saelab("steer", str(file), "--samples", "1", "--latent", "4", "--prompt", "a")
    assert code == 0
    assert out.count("\na") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--positions", "end"], "positions 'end' can't be read"),
        (["--strenght", "2"], "unknown key 'strenght'; did you mean 'strength'?"),
        (["another"], "'another' is one word too many"),
    ],
)
def test_mistakes_are_one_sentence(saelab, few, words, sentence) -> None:
    code, _, err = saelab(*few, "--latent", "1", *words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_what_is_missing_is_named(saelab, few) -> None:
    code, _, err = saelab(*few)
    assert (code, err) == (2, "saelab: saelab steer: key 'latent' is required\n")
