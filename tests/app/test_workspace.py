"""Which runs are found, under which names."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app import workspace
from app.workspace import open_workspace


def make_run(path: Path) -> Path:
    (path / "dictionary").mkdir(parents=True)
    return path


def test_a_run_itself_and_runs_below_are_found(tmp_path: Path) -> None:
    for name in ("a", "group/b", "group/deep/c"):
        make_run(tmp_path / name)
    assert list(open_workspace([tmp_path]).runs) == ["a", "group/b", "group/deep/c"]
    assert list(open_workspace([tmp_path / "a"]).runs) == ["a"]


def test_runs_are_not_searched_for_runs_and_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "a" / "dictionary" / "inner")
    make_run(tmp_path / ".a.partial")
    make_run(tmp_path / "one" / "two" / "three" / "four" / "too-deep")
    assert list(open_workspace([tmp_path]).runs) == ["a"]


def test_ioi_reports_beside_their_dictionaries_are_found(tmp_path: Path) -> None:
    """As `saelab ioi demo` leaves them; what `saelab evaluate --suite ioi` leaves in a run belongs to the run."""
    made = tmp_path / "runs" / "ioi-demo"
    run = make_run(made / "dictionaries" / "task-topk" / "blocks.2.attn.z.head0-END")
    (made / "ioi.json").write_text("{}")
    (run / "evaluation").mkdir()
    (run / "evaluation" / "ioi.json").write_text("{}")
    found = open_workspace([tmp_path / "runs"])
    assert found.judged == {"ioi-demo": made / "ioi.json"}
    assert list(found.runs) == ["ioi-demo/dictionaries/task-topk/blocks.2.attn.z.head0-END"]
    assert list(open_workspace([made]).judged) == ["ioi-demo"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    make_run(outside / "secret")
    inside.mkdir()
    (inside / "link").symlink_to(outside, target_is_directory=True)
    assert open_workspace([inside]).runs == {}


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "x" / "two"]
    for folder in folders:
        make_run(folder / "demo")
    found = open_workspace([*folders, folders[0]])
    assert list(found.runs) == ["demo", "demo (2)", "two/demo"]
    assert {run.paths.root for run in found.runs.values()} == {folder / "demo" for folder in folders}
    assert all(name == run.name for name, run in found.runs.items())


def test_only_names_lead_to_runs(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    found = open_workspace([tmp_path])
    assert found.get("a") is not None
    assert all(found.get(name) is None for name in ("", "b", "../a", str(tmp_path / "a"), None))


def test_a_huge_tree_does_not_hang_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "FOLDERS_VISITED", 5)
    for number in range(20):
        make_run(tmp_path / f"{number:02}")
    assert list(open_workspace([tmp_path]).runs) == ["00", "01", "02", "03"]  # the fifth folder is tmp_path itself


def test_a_missing_folder_holds_no_runs(tmp_path: Path) -> None:
    assert open_workspace([tmp_path / "nowhere"]).runs == {}


def test_training_means_metrics_a_moment_ago_and_no_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "metrics.jsonl").write_text("{}\n")
    run = open_workspace([tmp_path]).runs["a"]
    assert run.is_training
    long_ago = time.time() - 10_000
    os.utime(path / "metrics.jsonl", (long_ago, long_ago))
    assert not run.is_training
    os.utime(path / "metrics.jsonl")
    (path / "dictionary").mkdir()
    assert not run.is_training
