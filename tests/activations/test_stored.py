"""Vectors on their way to the disk and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saelab.activations.stored import TORCH_TYPES, decode, encode, row_bytes, storage_type


def test_int8_by_hand():
    x = torch.tensor([[127.0, -63.5, 0.5, 1.5], [-2.54, 1.27, 0.011, 0.0], [0.0, 0.0, 0.0, 0.0]])
    values, scale = encode(x, torch.int8)
    assert scale is not None
    assert values.dtype == torch.int8
    # Scales are 127 / 127, 2.54 / 127 and 0; -63.5, 0.5 and 1.5 lie between two numbers and go to the even one.
    assert scale.tolist() == pytest.approx([1.0, 0.02, 0.0])
    assert values.tolist() == [[127, -64, 0, 2], [-127, 64, 1, 0], [0, 0, 0, 0]]
    wanted = torch.tensor([[127.0, -64.0, 0.0, 2.0], [-2.54, 1.28, 0.02, 0.0], [0.0] * 4])
    assert torch.allclose(decode(values, scale), wanted, atol=1e-6)


def test_rows_too_small_or_large_for_a_scale():
    smallest, largest = 2.0**-149, 1e38
    values, scale = encode(
        torch.tensor([[60 * smallest, 0.0], [190 * smallest, smallest], [largest, -largest]]), torch.int8
    )
    assert scale is not None
    back = decode(values, scale)
    assert back[0].tolist() == [0.0, 0.0]  # 60 / 127 of the smallest number is none
    assert back[1].tolist() == [127 * smallest, smallest]  # its scale, 190 / 127, was rounded down
    assert torch.allclose(back[2], torch.tensor([largest, -largest]))


@settings(deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(0, 5), width=st.integers(1, 40), power=st.integers(-30, 30))
def test_int8_is_off_by_half_a_scale_at_most(seed: int, n: int, width: int, power: int):
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(seed)) * 2.0**power
    values, scale = encode(x, torch.int8)
    assert scale is not None
    assert torch.equal(scale, x.abs().amax(1) / 127)
    assert ((decode(values, scale) - x).abs() <= scale[:, None] * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_other_types_are_those_of_torch(dtype):
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    values, scale = encode(x, TORCH_TYPES[dtype])
    assert scale is None
    assert torch.equal(decode(values, None), x.to(TORCH_TYPES[dtype]).float())


def test_gradients_have_a_type_of_their_own():
    types = {name: storage_type(name, gradient=True) for name in TORCH_TYPES}
    assert types == {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.bfloat16, "int8": torch.bfloat16}
    assert {name: storage_type(name) for name in TORCH_TYPES} == TORCH_TYPES


def test_bytes_of_a_vector():
    assert [row_bytes(768, dtype) for dtype in TORCH_TYPES.values()] == [3072, 1536, 1536, 772]
