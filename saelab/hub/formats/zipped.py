"""Arrays in a .npz archive, held against what its headers promise before any of them is loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from saelab.errors import UserError
from saelab.hub.formats.untrusted import require_finite

_MOST_ARRAYS = 64
_LONGEST_HEADER = 2**14  # bytes


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of the arrays of an archive; no array is loaded.

    Raises:
        UserError: the file is missing or damaged, or holds anything but floating-point arrays of the size it promises.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_ARRAYS:
                raise UserError(f"{path} holds {len(members)} arrays; no dictionary has so many")
            return {member.filename.removesuffix(".npy"): _shape(archive, member, path) for member in members}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path} is damaged or no .npz archive: {error}") from None


def _shape(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> tuple[int, ...]:
    """What an array's header says, which its size has to bear out."""
    if member.compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{path}: {member.filename!r} is compressed, so its size can't be known before it is loaded")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, kind = read(file, max_header_size=_LONGEST_HEADER)
        if kind.kind != "f":
            raise UserError(f"{path}: {member.filename!r} holds {kind}, not floating-point numbers")
        promised = file.tell() + int(np.prod(shape, dtype=object)) * kind.itemsize
    if min(shape, default=1) < 0 or promised != member.file_size or member.file_size > path.stat().st_size:
        raise UserError(f"{path}: {member.filename!r} promises {promised:,} bytes and has {member.file_size:,}")
    return tuple(shape)


def read_arrays(path: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Some arrays of an archive whose `array_shapes` were checked, in fp32.

    Args:
        names: ours → the archive's.

    Raises:
        UserError: they are damaged, NaN or infinite.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            tensors = {ours: torch.from_numpy(archive[theirs].astype(np.float32)) for ours, theirs in names.items()}
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, EOFError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    require_finite(tensors, path)
    return tensors
