"""What a model may run on: devices, number types, and the memory that is free."""

from pathlib import Path
from typing import Final

import psutil
import torch

from saelab.errors import UserError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CGROUP: Final = Path("/sys/fs/cgroup")


def resolve_dtype(dtype: str) -> torch.dtype:
    """ "float32", "bfloat16" or "float16"."""
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def resolve_device(device: str) -> torch.device:
    """ "auto" is the first there is of CUDA, Apple's MPS, and the CPU."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device == "auto":
        return torch.device(available[0])
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise UserError(f"device is {device!r}; it must be auto, cpu, cuda, cuda:<number> or mps") from None
    if resolved.type not in available:
        raise UserError(f"device is {device!r}, but this machine has {', '.join(available)}")
    return resolved


def available_memory(device: torch.device) -> int:
    """Bytes that may still be taken: of a GPU's memory, else of the machine's, or of the container's if it has less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    machine = psutil.virtual_memory().available
    limit = _CGROUP / "memory.max"
    if not limit.is_file() or (most := limit.read_text().strip()) == "max":
        return machine
    held = int((_CGROUP / "memory.current").read_text())
    files = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    return min(machine, int(most) - held + int(files.get("inactive_file", 0)))  # cached files give way
