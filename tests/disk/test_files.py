"""A name that exists is a file that is whole, whatever happens on the way."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from saelab.disk import (
    append_jsonl,
    exclusive,
    read_json,
    read_jsonl,
    require_free_space,
    staged_directory,
    write_json,
    write_text,
)
from saelab.disk.tensors import read_tensors, write_tensors
from saelab.errors import UserError


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=r"a\.txt can't be written: the disk is full"):
        write_text(tmp_path / "a.txt", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_directory(tmp_path / "d") as staging:
        (staging / "half").write_text(str(1 / 0))
    assert list(tmp_path.iterdir()) == []
    with staged_directory(tmp_path / "d") as staging:
        (staging / "whole").write_text("x")
    assert (tmp_path / "d" / "whole").read_text() == "x"


def test_an_existing_directory_is_replaced_only_on_request(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with staged_directory(tmp_path / "d", replace=True) as staging:
            (staging / content).write_text(content)
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["two"]
    with pytest.raises(UserError, match="exists already"), staged_directory(tmp_path / "d"):
        pass


def test_kill_in_the_middle_leaves_no_file_under_its_name(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom saelab.disk.files import staged_file\n"
        "with staged_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    target = tmp_path / "a.bin"
    process = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not target.exists()


def test_only_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    log = tmp_path / "m.jsonl"
    for step in range(2):
        append_jsonl(log, {"step": step})
    with open(log, "a") as file:
        file.write('{"step": 2, "lo')
    assert read_jsonl(log) == [{"step": 0}, {"step": 1}]
    log.write_text('{"step"\n{"step": 1}\n')
    with pytest.raises(UserError, match="is damaged"):
        read_jsonl(log)


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_json(tmp_path / "a.json")


def test_tensors_round_trip_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    tensors = {"a": torch.randn(3, 4).T, "b": torch.arange(5), "c": torch.randn(2).bfloat16()}
    write_tensors(path, tensors)
    again = read_tensors(path)
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="is damaged or not a safetensors file"):
        read_tensors(path)


def test_too_little_space_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the harvest needs .* GB but"):
        require_free_space(tmp_path / "not" / "yet", 10**18, "the harvest")


def test_two_writers_exclude_each_other(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom saelab.disk import exclusive\n"
        "with exclusive(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
    )
    lock = tmp_path / "run" / ".lock"
    process = subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another saelab process is writing"), exclusive(lock):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    time.sleep(0.05)
    with exclusive(lock):
        pass
