"""Bytes to disk: temporary file, fsync, rename; so a name that exists is a file that is whole."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from saelab.errors import UserError

SPARE_BYTES = 64 * 2**20  # left free beside what a stage writes, so that logs and the system go on


@contextmanager
def staged_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success it is flushed to disk and takes `path`'s name in one step."""
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            _sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def staged_directory(path: Path, replace: bool = False) -> Iterator[Path]:
    """Yield an empty directory beside `path`; on success it is flushed and renamed to `path` in one step.

    With `replace` an existing directory gives way at that moment, not before. An error leaves `path` as it was.

    Raises:
        UserError: `path` exists and `replace` is off; the disk is full or the folder can't be written.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise UserError(f"{path} exists already; give another name or overwrite it")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        try:
            yield staging
            _sync_tree(staging)
            os.chmod(staging, 0o777 & ~_umask())
            if path.exists():
                retired = staging.with_suffix(".retired")
                os.replace(path, retired)
                os.replace(staging, path)
                shutil.rmtree(retired)
            else:
                os.replace(staging, path)
            _sync_directory(path.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Give a whole file its place in one step, in another folder of the same disk; what was there is replaced."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
        _sync_directory(target.parent)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold the lock file `lock` while writing beside it; a process that dies gives it up by itself.

    Raises:
        UserError: another process holds it.
    """
    with disk_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "w")  # noqa: SIM115 (closed below, after the work it guards)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another saelab process is writing to {lock.parent}; wait for it or stop it") from None
        yield


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with staged_file(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    """Write strict JSON atomically; NaN and infinities raise, they have no place in a file others read."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a missing or damaged file is a UserError."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Append one JSON line. A crash can leave at most a torn last line, which `read_jsonl` drops."""
    with disk_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read all whole lines of a JSONL file; [] when it does not exist. Only a torn last line is dropped."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    whole, _, _ = text.rpartition("\n")
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says; its values are not read."""
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        size = os.fstat(file.fileno()).st_size
        if len(start) < 8 or length > size - 8:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, KeyError, IndexError, TypeError):  # the header itself is damaged
            return False
    return size == 8 + length + max(ends, default=0)


def require_free_space(directory: Path, needed: int, what: str) -> None:
    """Refuse before a long write that can't end well.

    Args:
        needed: bytes about to be written; `what` names them in the sentence.
    """
    existing = Path(directory).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed + SPARE_BYTES:
        raise UserError(f"{what} needs {needed / 1e9:.2f} GB but {existing} has {free / 1e9:.2f} GB free")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say what the operating system refused in one sentence."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EACCES: "permission is denied",
            errno.EPERM: "permission is denied",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "a part of the path is a file",
        }
        if error.errno not in reasons:
            raise
        raise UserError(f"{path} can't be written: {reasons[error.errno]}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_directory(Path(folder))
