"""Safetensors files as memory maps: opening reads nothing, and only the rows that are used come into memory."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelab.errors import UserError


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors that are views of the file. Don't write to them; the map closes when the last of them goes.

    Raises:
        UserError: the file is missing, cut short or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `saelab harvest --out DIR --repair` makes it again") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}; `saelab harvest --out DIR --repair` makes it again") from None
