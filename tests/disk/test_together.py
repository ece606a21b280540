"""A file that several wrote is the file that one writes."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saelab.disk.tensors import read_tensors, view_tensors, write_tensors
from saelab.disk.together import TensorRows, begin_file, write_rows
from saelab.errors import UserError

DTYPES = (
    torch.float32, torch.int64, torch.bool, torch.float64, torch.bfloat16, torch.int32, torch.uint8, torch.int8,
    torch.float16, torch.int16,
)  # fmt: skip


def tensors(rows: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(rows)
    many = {f"a{n}": torch.randn(rows, 3, generator=random).mul(9).to(dtype) for n, dtype in enumerate(DTYPES)}
    return {
        **many, "scale": torch.tensor(2.5), "count": torch.tensor(7), "none": torch.zeros(0, 4),
        "é": torch.arange(rows), "B": torch.randn(rows, 2, 2, generator=random),
        "turned": torch.randn(3, rows, generator=random).T,
    }  # fmt: skip


def divided(whole: dict[str, Tensor], cuts: list[int]) -> list[dict[str, TensorRows]]:
    """Rows between the cuts, a writer each; a scalar is the first one's."""
    shares: list[dict[str, TensorRows]] = [{} for _ in cuts[1:]]
    for name, tensor in whole.items():
        if tensor.dim() == 0:
            shares[0][name] = TensorRows(tensor, 0, 1)
            continue
        for share, first, stop in zip(shares, cuts, cuts[1:], strict=False):
            share[name] = TensorRows(tensor[first:stop], min(first, len(tensor)), len(tensor))
    return shares


@given(rows=st.integers(1, 9), inner=st.lists(st.integers(0, 9), max_size=3))
def test_the_bytes_are_those_of_one_writer(
    tmp_path_factory: pytest.TempPathFactory, rows: int, inner: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("together")
    whole = tensors(rows)
    write_tensors(folder / "one", whole)
    shares = divided(whole, [0, *sorted(min(cut, rows) for cut in inner), rows])
    begin_file(folder / "many", shares[0])
    for share in reversed(shares):
        write_rows(folder / "many", share)
    assert (folder / "many").read_bytes() == (folder / "one").read_bytes()
    viewed = view_tensors(folder / "many")
    assert all(torch.equal(viewed[name], tensor) for name, tensor in read_tensors(folder / "one").items())


def test_a_file_that_is_not_there_or_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = divided(tensors(4), [0, 4])[0]
    with pytest.raises(UserError, match="is not there; all ranks need one folder that they share"):
        write_rows(tmp_path / "file", parts)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(UserError, match=r"file needs 0\.00 GB but .* has 0\.00 GB free"):
        begin_file(tmp_path / "file", parts)
    assert not list(tmp_path.iterdir())
