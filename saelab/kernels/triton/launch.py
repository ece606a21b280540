"""How kernels are started."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Tensor | float, warps: int = 4, **constants: Any) -> None:
    """Run a Triton kernel on the device of its first argument; Triton itself takes the current one.

    Args:
        grid: programs along each axis, of which the first varies fastest.
        constants: what is compiled into the kernel.
    """
    first = arguments[0]
    assert isinstance(first, Tensor)
    with torch.cuda.device_of(first):
        kernel[grid](*arguments, num_warps=warps, **constants)


def tiles(size: int, tile: int) -> int:
    """How many tiles cover `size`."""
    return -(-size // tile)


def power_of_two(size: int) -> int:
    """The least power of two that is not below `size`: what Triton wants blocks to be."""
    return 1 << max(0, size - 1).bit_length()
