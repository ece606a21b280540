"""The dense encoder product on a CPU: oneDNN where it is exact, into a buffer that is kept."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from threading import get_ident
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float
from torch import Tensor

PROBE = 256  # rows and columns of the product by which oneDNN is tried


_SHARED: WeakValueDictionary[tuple[str, int], Buffer] = WeakValueDictionary()


class Buffer:
    """Memory that is asked for once: the pages of a fresh 400 MB tensor take longer to map than to fill."""

    def __init__(self) -> None:
        self._kept: Tensor | None = None

    @classmethod
    def shared(cls, purpose: str) -> Buffer:
        """The one buffer of this thread for a purpose, while anybody holds it: trainings that take turns need one."""
        return _SHARED.setdefault((purpose, get_ident()), cls())

    def take(self, rows: int, columns: int, like: Tensor) -> Float[Tensor, "rows columns"]:
        """A tensor with whatever was left in it; it shares memory with the one given out before."""
        kept, size = self._kept, rows * columns
        if kept is None or kept.numel() < size or kept.dtype != like.dtype or kept.device != like.device:
            kept = self._kept = like.new_empty(size)
        return kept[:size].view(rows, columns)


def affine(
    x: Float[Tensor, "B d"], W: Float[Tensor, "F d"], b: Float[Tensor, "F"], buffer: Buffer, by_latent: bool
) -> Float[Tensor, "B F"]:
    """`x @ Wᵀ + b` in `buffer`; `by_latent` lays columns out contiguously instead of rows."""
    with torch.no_grad(), fast_products(x):
        if by_latent:
            return torch.addmm(b[:, None], W, x.T, out=buffer.take(len(W), len(x), x)).T
        return torch.addmm(b, x, W.T, out=buffer.take(len(x), len(W), x))


def product(x: Float[Tensor, "B d"], W: Float[Tensor, "F d"], buffer: Buffer) -> Float[Tensor, "B F"]:
    """`x @ Wᵀ` in `buffer`."""
    with torch.no_grad(), fast_products(x):
        return torch.mm(x, W.T, out=buffer.take(len(x), len(W), x))


def fast_products(like: Tensor) -> AbstractContextManager[None]:
    """Within it, products of tensors `like` this one are as fast as they get without losing precision."""
    exact = like.dtype == torch.float32 and like.device.type == "cpu" and one_dnn_is_exact()
    return _one_dnn() if exact else nullcontext()


@contextmanager
def _one_dnn() -> Iterator[None]:
    """Hand fp32 products to oneDNN, which beats MKL by a sixth on AMD processors.

    Torch offers it under the name of a lower precision, "bf16": leave to round, which oneDNN takes up only where the
    processor multiplies bf16 matrices in hardware.
    """
    settings = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


@cache
def one_dnn_is_exact() -> bool:
    """Whether oneDNN's fp32 product keeps fp32 precision here, by processor (x86 without AMX) and by trial."""
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    if not (torch.backends.mkldnn.is_available() and is_x86) or torch.cpu.get_capabilities().get("amx_tile"):
        return False
    # 1 + 2⁻¹² is 1 in bf16 and in tf32, so a rounded product would be PROBE exactly.
    probe = torch.full((PROBE, PROBE), 1 + 2**-12)
    with _one_dnn():
        return bool((probe @ torch.ones(PROBE, PROBE) == PROBE * (1 + 2**-12)).all())
