"""The frame around every command: exit codes, one sentence for mistakes, tracebacks for bugs, quick help."""

import subprocess
import sys

import pytest

from saelab import UserError, cli
from saelab.cli.commands import COMMANDS, DIVIDED, app


def test_no_arguments_show_the_help(saelab) -> None:
    code, out, _ = saelab()
    assert code == 0
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_screen_and_gives_an_example(saelab, name: str) -> None:
    code, out, _ = saelab(*name.split(), "--help")
    assert code == 0
    assert "saelab" in out.partition("\n")[2]  # an example, beside the usage line
    assert len(out.splitlines()) <= 48
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_imports_nothing_heavy(name: str) -> None:
    code = f"""
import sys
from saelab.cli import main
try:
    main({[*name.split(), "--help"]!r})
except SystemExit:
    pass
heavy = {{"torch", "transformers", "numpy", "pydantic", "pyarrow", "duckdb", "streamlit"}} & sys.modules.keys()
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_command_suggests_the_nearest(saelab) -> None:
    code, out, err = saelab("inspct")
    assert (code, out) == (2, "")
    assert 'Did you mean "inspect"' in err
    assert err.startswith("saelab: ")
    assert err.count("\n") == 1


def test_an_unknown_option_is_one_sentence(saelab) -> None:
    code, _, err = saelab("doctor", "--jsn")
    assert code == 2
    assert err.startswith("saelab: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in DIVIDED])
def test_a_command_that_several_processes_cannot_share_says_so_once(
    saelab, monkeypatch: pytest.MonkeyPatch, name: str, rank: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", rank)
    code, out, err = saelab(name, "a", "b")
    assert (code, out) == (2, "")
    said = f"saelab: `saelab {name}` runs in one process, and torchrun started 3 (environment variable WORLD_SIZE);"
    assert err.startswith(said) == (rank == "0")
    assert err.count("\n") == (rank == "0")


def test_each_command_that_is_shared_is_there() -> None:
    assert set(DIVIDED) < set(COMMANDS)


def failing(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.fixture
def command(monkeypatch):
    """Add a command that raises."""

    def add(error: BaseException) -> None:
        app.command(failing(error), name="fail")

    yield add
    del app["fail"]


def test_a_user_error_is_exit_code_2_and_one_line(saelab, command) -> None:
    command(UserError("first part\nsecond part"))
    assert saelab("fail") == (2, "", "saelab: first part second part\n")


def test_an_interrupt_is_exit_code_130(saelab, command) -> None:
    command(KeyboardInterrupt())
    code, _, err = saelab("fail")
    assert code == 130
    assert "the same command continues" in err


def test_a_bug_keeps_its_traceback(command) -> None:
    command(ZeroDivisionError("bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


def test_python_m_saelab_is_saelab() -> None:
    done = subprocess.run([sys.executable, "-m", "saelab", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0.1.0"
