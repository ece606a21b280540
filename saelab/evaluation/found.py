"""What one batch comes to, as named tensors: made by whichever process has the batch, added up by the first one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import UInt8
from torch import Tensor

from saelab.kernels.codes import SparseCodes

Found = Mapping[str, Tensor]


def under(name: str, found: Found) -> dict[str, Tensor]:
    """The same tensors under names that begin with `name`."""
    return {f"{name}/{of}": tensor for of, tensor in found.items()}


def nested(parts: Mapping[str, Found]) -> dict[str, Tensor]:
    """All parts, each under its name."""
    return {name: tensor for key, found in parts.items() for name, tensor in under(key, found).items()}


def part(found: Found, name: str) -> dict[str, Tensor]:
    """What is under `name`; empty where nothing is."""
    return {of.removeprefix(f"{name}/"): tensor for of, tensor in found.items() if of.startswith(f"{name}/")}


def of_text(text: str) -> UInt8[Tensor, "bytes"]:
    """A text that is no tensor by itself, such as JSON."""
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def text_of(content: UInt8[Tensor, "bytes"]) -> str:
    """What `of_text` was given."""
    return content.numpy().tobytes().decode()


def of_codes(codes: SparseCodes) -> dict[str, Tensor]:
    """The codes of a batch, on the CPU."""
    return {"values": codes.values.cpu(), "latents": codes.latents.cpu(), "offsets": codes.offsets.cpu()}


def codes_of(found: Found, d_sae: int) -> SparseCodes:
    """What `of_codes` was given."""
    offsets = found["offsets"]
    return SparseCodes(found["values"], found["latents"], offsets, d_sae, (len(offsets) - 1,))
