"""How vectors are stored: as fp32, bf16 or fp16 numbers, or as int8 with one fp32 scale for each row.

int8 is symmetric: a row's scale is max|x| / 127, its entries are x / scale rounded to the nearest whole number (ties
to even), and what is read is scale · entry. So an entry is off by half a scale at most: where a few entries of a row
dwarf the others, these are lost. A row of zeros has scale 0, and one whose scale fp32 can't hold becomes zeros.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from saelab.activations.config import StorageType

TORCH_TYPES: dict[StorageType, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,
}
_LARGEST = 127  # -128 has no opposite, so it is left unused


def storage_type(dtype: StorageType, gradient: bool = False) -> torch.dtype:
    """How a column lies on disk.

    Gradients are bf16 where activations are fp16 or int8: they are smaller than fp16 reaches, and matches are ranked by
    entries of very different size, of which bf16 keeps each to 3 digits and int8 only the largest (on the bundled
    model it would add 20 to 50 times the error).
    """
    return torch.bfloat16 if gradient and dtype in ("fp16", "int8") else TORCH_TYPES[dtype]


def row_bytes(width: int, stored: torch.dtype) -> int:
    """Bytes of one vector, its scale included."""
    return width * stored.itemsize + (4 if stored == torch.int8 else 0)


def encode(x: Float[Tensor, "n width"], stored: torch.dtype) -> tuple[Shaped[Tensor, "n width"], Tensor | None]:
    """What is stored of `x`: values, and for int8 the scale of each row (fp32 [n]). `x` must be finite for int8."""
    if stored != torch.int8:
        return x.to(stored), None
    x = x.float()
    row_scale = x.abs().amax(dim=1) / _LARGEST
    divisor = torch.where(row_scale > 0, row_scale, torch.inf)
    values = (x / divisor[:, None]).round_().clamp_(-_LARGEST, _LARGEST)
    return values.to(torch.int8), row_scale


def decode(values: Shaped[Tensor, "n width"], row_scale: Float[Tensor, "n"] | None) -> Float[Tensor, "n width"]:
    """What is read, fp32; stored fp32 is returned as it is."""
    x = values.to(torch.float32)
    return x if row_scale is None else x.mul_(row_scale[:, None])
