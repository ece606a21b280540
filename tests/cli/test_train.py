"""`saelab train` with lists: where runs go, what the plan says, how it ends."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from saelab.cli.inspect import describe
from saelab.disk import RunPaths

LISTS = ("--sae.k", "2,4", "--sae.preset", "[topk, gradient]")
NAMES = ["gradient-k2", "gradient-k4", "topk-k2", "topk-k4"]


@pytest.fixture(scope="module")
def sweep(small: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from saelab import cli

    out = tmp_path_factory.mktemp("sweep") / "grid"
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in ["train", *small, *LISTS, "--out", out]])
    assert stop.value.code == 0
    return out


def test_lists_make_a_folder_of_runs(sweep: Path) -> None:
    assert sorted(path.name for path in sweep.iterdir()) == NAMES
    assert all(RunPaths(path).dictionary.is_dir() for path in sweep.iterdir())


def test_again_there_is_nothing_left_to_do(saelab, small, sweep: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sweep.rglob("*.safetensors")}
    code, out, _ = saelab("train", *small, *LISTS, "--out", sweep)
    assert code == 0
    assert out == f"4 dictionaries are in {sweep}; next: saelab evaluate {sweep}/*\n"
    assert {path: path.stat().st_mtime_ns for path in sweep.rglob("*.safetensors")} == before


def test_a_folder_of_runs_is_explained(sweep: Path) -> None:
    lines = dict(describe(sweep))
    assert lines["what"].startswith("4 runs, 4 finished")
    assert [name for name in lines if name != "what"] == NAMES
    assert lines["topk-k2"].startswith("finished; step 8, tokens 1024, fvu ")


def test_the_app_finds_the_runs(sweep: Path) -> None:
    from app.workspace import open_workspace

    assert list(open_workspace([sweep]).runs) == NAMES


def test_the_plan_names_every_run_and_what_all_take(saelab, small, tmp_path: Path) -> None:
    code, out, _ = saelab("train", *small, *LISTS, "--out", tmp_path / "grid", "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if "-k" in line] == [
        "topk-k2",
        "gradient-k2",
        "topk-k4",
        "gradient-k4",
    ]
    assert "tokens  1.02k, 8 steps, 4.29k parameters" in out  # 4 × (2 · 32 · 16 + 32 + 16) = 4288
    assert f"into    {tmp_path / 'grid'} (nothing was written)" in out
    assert list(tmp_path.iterdir()) == []


def test_runs_that_do_not_share_are_planned_as_passes(saelab, small, tmp_path: Path) -> None:
    _, out, _ = saelab("train", *small, "--seed", "0,1", "--out", tmp_path / "grid", "--dry-run")
    assert "tokens  2.05k in 2 passes" in out


def test_a_plan_that_does_not_fit_on_the_disk_is_refused(saelab, small, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**9, used=10**9, free=10**6))
    code, _, err = saelab("train", *small, *LISTS, "--out", tmp_path / "grid", "--dry-run")
    assert code == 2
    assert "this training needs" in err
    code, _, err = saelab("train", *small, *LISTS, "--out", tmp_path / "grid")
    assert code == 2
    assert f"the training of 4 runs into {tmp_path / 'grid'} needs" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--sae.k", "2,2"), "the command line: two combinations of the lists are the same run, k2"),
        (("--sae.k", "2,x"), "sae.k: input should be a valid integer"),
        (("--sae.k", "[]"), "sae.k is an empty list"),
        (("--sae.k", "2,4", "--together", "0"), "--together 0 leaves no run to train"),
    ],
)
def test_lists_that_can_not_be(saelab, small, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    code, out, err = saelab("train", *small, *words, "--out", tmp_path / "grid")
    assert (code, out) == (2, "")
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_can_not_hold_runs(saelab, small, finished: Path) -> None:
    code, _, err = saelab("train", *small, "--sae.k", "2,4", "--out", finished)
    assert code == 2
    assert f"{finished} is a run itself" in err


def test_a_run_that_diverges_is_named_at_the_end(saelab, small, tmp_path: Path) -> None:
    lists = ("--optimizer.lr", "[0.001, 1.0e+30]", "--optimizer.warmup_fraction", 0)
    code, out, err = saelab("train", *small, *lists, "--out", tmp_path)
    assert (code, out) == (2, "")
    assert "lr1e+30: diverged" in err
    assert err.splitlines()[-1].startswith(
        "saelab: 1 of 2 runs diverged, the others are finished: lr1e+30: the loss became"
    )
    assert RunPaths(tmp_path / "lr0.001").dictionary.is_dir()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--parallel.latent", "2"),
            "saelab: parallel.latent = 2 takes 2 processes, and this is one alone; type torchrun",
        ),
        (("--parallel.sweep", "--sae.k", "2,4"), "saelab: parallel.sweep spreads runs over processes, and this is one"),
        (("--parallel.sweep",), "saelab: parallel.sweep spreads the runs of a grid, and these settings make one run"),
        (("--parallel.data", "0"), "the command line: parallel: data: input should be greater than or equal to 1"),
        (("--parallel.latents", "2"), "parallel: unknown key 'latents'; did you mean 'latent'?"),
        (("--parallel", "4"), "parallel: the settings: input should be a valid dictionary"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_several_processes_need_torchrun(
    saelab, small, tmp_path: Path, words: tuple[str, ...], sentence: str, more: tuple[str, ...]
) -> None:
    code, out, err = saelab("train", *small, *words, *more, "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


def test_who_shares_the_work_is_no_part_of_the_run(saelab, small, tmp_path: Path) -> None:
    code, _, _ = saelab("train", *small, "--parallel.data", 1, "--parallel.latent", 1, "--out", tmp_path / "run")
    assert code == 0
    assert "parallel" not in RunPaths(tmp_path / "run").config.read_text()
    code, _, err = saelab("train", *small, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
