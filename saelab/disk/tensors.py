"""Tensors on disk: safetensors only, written atomically, read with sizes and shapes checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from saelab.disk.files import staged_file
from saelab.errors import UserError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors (and string metadata) to a safetensors file, atomically."""
    # A copy each: safetensors refuses tensors that share memory, as tied weights do.
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with staged_file(path) as file:
        file.write(save(plain, metadata=dict(metadata) if metadata else None))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file into memory of their own.

    Raises:
        UserError: the file is missing or is not whole.
    """
    return {name: tensor.clone() for name, tensor in view_tensors(path).items()}


def view_tensors(path: Path) -> dict[str, Tensor]:
    """The same as views of the file, of which only what is used comes into memory. Don't write to them."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file: {error}") from None
