"""One safetensors file written by several processes, each its own rows of every tensor at their places.

The file is, byte for byte, the one that `write_tensors` writes of the whole tensors. Rows come straight from where they
are: nothing is gathered, and the tensors need not fit into one process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from saelab.disk.files import disk_errors, require_free_space
from saelab.errors import UserError

# In the order in which the format's own writer lays tensors out (within a type by name), largest alignment first.
_NAMES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class TensorRows(NamedTuple):
    """Rows of a tensor that others may hold more of."""

    tensor: Shaped[Tensor, "n *d"]
    """No rows where others hold all of them; of a tensor without dimensions, itself."""
    first: int
    """Number of its first row in the whole tensor."""
    rows: int
    """Rows of the whole tensor."""

    @property
    def shape(self) -> list[int]:
        """Of the whole tensor."""
        return [self.rows, *self.tensor.shape[1:]] if self.tensor.dim() else []


def begin_file(path: Path, parts: Mapping[str, TensorRows]) -> None:
    """Make the file with its header and in its full length, for `write_rows` of all processes.

    Args:
        parts: every tensor of the file, with whatever rows this process has of it.

    Raises:
        UserError: the disk has no room for it.
    """
    order = list(_NAMES)
    header, end = {}, 0
    for name, part in sorted(parts.items(), key=lambda item: (order.index(item[1].tensor.dtype), item[0])):
        begin, end = end, end + prod(part.shape) * part.tensor.element_size()
        header[name] = {"dtype": _NAMES[part.tensor.dtype], "shape": part.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    require_free_space(path.parent, 8 + len(text) + end, str(path.name))
    with disk_errors(path), open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write_rows(path: Path, parts: Mapping[str, TensorRows]) -> None:
    """Write this process's rows into the file that `begin_file` made, and flush them to the disk.

    Raises:
        UserError: the file is not there, as when processes do not share the folder; or the disk is full.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; all ranks need one folder that they share") from None
    with disk_errors(path):
        try:
            begin, header = _header(descriptor)
            for name, part in parts.items():
                row_bytes = prod(part.shape[1:]) * part.tensor.element_size()
                at = begin + header[name]["data_offsets"][0] + part.first * row_bytes
                _write_at(descriptor, at, part.tensor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _header(descriptor: int) -> tuple[int, dict[str, Any]]:
    """Where the first tensor begins, and what the header says."""
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    return 8 + length, json.loads(os.pread(descriptor, length, 8))


def _write_at(descriptor: int, at: int, tensor: Tensor) -> None:
    """The bytes of a tensor, from offset `at` of the file on."""
    if not tensor.numel():
        return
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    left = memoryview(plain.view(torch.uint8).numpy().data)
    while left:  # a single call writes at most 2 GB
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written
