from pathlib import Path

import pytest

from saelab.cli.arguments import Arguments, parse
from saelab.config import Config
from saelab.errors import UserError


class Inner(Config):
    k: int = 32
    """active latents per token"""


class Outer(Config):
    sae: Inner = Inner()
    lr: float = 1e-3
    compile: bool = False
    layers: tuple[int, ...] = (0,)


def test_words_and_settings_come_in_any_order() -> None:
    found = parse(["--sae.k", "64", "a.yaml", "--lr=-1e-3", "--top-k", "2", "--compile"])
    assert found.file == Path("a.yaml")
    assert found.settings == {"sae.k": "64", "lr": "-1e-3", "top_k": "2", "compile": "true"}


def test_a_negative_number_is_a_value() -> None:
    assert parse(["--strength", "-4"]).settings == {"strength": "-4"}


def test_bare_dashes_are_refused() -> None:
    with pytest.raises(UserError, match="write --key value"):
        parse(["--"])


def test_runs_are_told_from_config_files() -> None:
    found = parse(["runs/a", "e.yaml", "runs/b", "--tokens", "1M"], takes_runs=True)
    assert found == Arguments(("runs/a", "runs/b"), Path("e.yaml"), {"tokens": "1M"})


def test_precedence_is_defaults_then_file_then_settings(tmp_path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("sae: {k: 16}\nlr: 0.5\n")
    config = parse([str(file), "--sae.k", "8", "--layers", "[1, 2]"]).load(Outer)
    assert (config.sae.k, config.lr, config.layers, config.compile) == (8, 0.5, (1, 2), False)


def test_options_of_the_command_win_only_when_given() -> None:
    assert parse([]).load(Outer, lr=None).lr == 1e-3
    assert parse(["--lr", "2"]).load(Outer, lr=3.0).lr == 3.0


def test_a_second_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"'b\.yaml' is one word too many"):
        parse(["a.yaml", "b.yaml"])


def test_unknown_setting_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown key 'sae\.kk'; did you mean 'k'"):
        parse(["--sae.kk", "8"]).load(Outer)
