"""State dicts that torch pickled, read without running what they say: nothing but plain tensors passes."""

from __future__ import annotations

import pickletools
import struct
import zipfile
from pathlib import Path

import torch
from torch import Tensor
from torch._weights_only_unpickler import UnpicklingError  # pyright: ignore[reportPrivateImportUsage]

from saelab.errors import UserError
from saelab.hub.formats.untrusted import require_finite

_LARGEST_PROGRAM = 2**20  # bytes of the pickle beside the tensors; a state dict of a dictionary has under 2,000
_STORAGES = {f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Int", "Long")}
_NAMED = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", *_STORAGES}


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict that `torch.save` wrote, on the CPU.

    The archive has to be uncompressed and its pickle may name nothing but what tensors are made of; then
    `torch.load(weights_only=True)` reads it.

    Raises:
        UserError: the file is missing, damaged, holds anything but tensors, or NaN and infinite numbers.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    _check_archive(path)
    broken = (
        RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, AssertionError,
        OSError, MemoryError, struct.error, UnpicklingError,
    )  # fmt: skip
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except broken as error:
        raise UserError(f"{path} is damaged or no state dict ({type(error).__name__})") from None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path} is no state dict")
    if "ae" in state:
        raise UserError(f"{path} holds the key 'ae': it is a backup of a training run, not a dictionary")
    for name, value in state.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise UserError(f"{path}: {name!r} is not a plain tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: {name!r} promises {value.numel():,} numbers and stores fewer")
    tensors = {name: value.detach() for name, value in state.items()}
    require_finite(tensors, path)
    return tensors


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise UserError(f"{path} is compressed, which torch.save never does")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise UserError(f"{path} promises more bytes than it has")
            programs = [member for member in members if member.filename.endswith(".pkl")]
            if len(programs) != 1 or programs[0].file_size > _LARGEST_PROGRAM:
                raise UserError(f"{path} is no state dict: it must hold one small pickle beside its tensors")
            program = archive.read(programs[0])
        named = {_named(*step[:2]) for step in pickletools.genops(program)} - {None}
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, RuntimeError, struct.error, EOFError) as error:
        raise UserError(f"{path} is damaged or was not written by torch.save: {error}") from None
    if strange := sorted(str(name) for name in named - _NAMED):
        raise UserError(f"{path} is refused: its pickle asks for {strange[0]!r}, and a state dict needs only tensors")


def _named(step: pickletools.OpcodeInfo, argument: object) -> str | None:
    """What a step of a pickle would import; a name that it takes off its stack can't be told beforehand."""
    if step.name in ("GLOBAL", "INST"):
        return str(argument)
    return f"a name from its stack ({step.name})" if step.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4") else None
