"""The cache: what can be made again at any time, kept to save that time. Deleting it loses nothing.

`SAELAB_CACHE` names its folder (`~/.cache/saelab`; "off" for none), `SAELAB_CACHE_SIZE` its size (20GB).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from saelab.config import parse_bytes
from saelab.disk.files import SPARE_BYTES
from saelab.errors import UserError

DEFAULT_SIZE = "20GB"


def cache_folder() -> Path | None:
    """Where the cache lies or will lie; None when it is switched off."""
    named = os.environ.get("SAELAB_CACHE", "~/.cache/saelab")
    if named.lower() in ("", "off"):
        return None
    try:
        return Path(named).expanduser()
    except RuntimeError:  # a user without a home
        return None


def make_room(entry: Path, needed: int) -> bool:
    """Whether `needed` bytes may be added to `entry`, a folder beside others of its kind.

    Where the cache would grow too large or the disk too full, the others go, those first that were not used for the
    longest time (`touch`).

    Raises:
        UserError: `SAELAB_CACHE_SIZE` is no size.
    """
    limit = _limit()
    others = sorted((path for path in entry.parent.iterdir() if path != entry), key=_last_used)
    sizes = {path: _size(path) for path in (*others, entry)}
    while True:
        full = sum(sizes.values()) + needed > limit
        if not full and shutil.disk_usage(entry.parent).free >= needed + SPARE_BYTES:
            return True
        if not others:
            return False
        oldest = others.pop(0)
        shutil.rmtree(oldest, ignore_errors=True)
        del sizes[oldest]


def touch(entry: Path) -> None:
    """Note that the folder, if there is one, was used now."""
    with suppress(OSError):
        os.utime(entry)


def _limit() -> int:
    given = os.environ.get("SAELAB_CACHE_SIZE", DEFAULT_SIZE)
    try:
        limit = parse_bytes(given)
    except ValueError as error:
        raise UserError(f"SAELAB_CACHE_SIZE: {error}") from None
    assert isinstance(limit, int)  # of text, parse_bytes makes a number
    return limit


def _last_used(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:  # another process made room
        return 0.0


def _size(entry: Path) -> int:
    total = 0
    for folder, _, names in os.walk(entry):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total
