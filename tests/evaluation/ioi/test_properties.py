"""F1 against tables worked out by hand, and unions against counting them one by one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saelab.evaluation.ioi.properties import (
    Family,
    PropertyTable,
    best_unions,
    f1_scores,
    families,
)
from saelab.evaluation.ioi.task import Prompts
from saelab.evaluation.ioi.toys import unwritten_prompts
from saelab.kernels.codes import SparseCodes


def codes_of(active: list[list[int]] | Tensor) -> SparseCodes:
    values = torch.as_tensor(active).float()
    return SparseCodes.from_mask(values, values != 0)


@pytest.fixture
def prompts() -> Prompts:
    """Names a, b, c, d (female, male, …):   a b / b a / a c / d c, read in the order of mention."""
    blank = unwritten_prompts(4, 4, torch.Generator())
    io, s, pos = torch.tensor([[0, 1, 0], [0, 1, 1], [2, 0, 1], [3, 2, 0]]).unbind(1)
    return replace(blank, io=io, s=s, pos=pos, names=("a", "b", "c", "d"))


def test_f1_by_hand(prompts: Prompts) -> None:
    # Latent 0 is active where IO is a; latent 1 in all prompts; latent 2 never; latent 3 in the last two, with a
    # negative code (which is no activity) in the first.
    codes = codes_of([[1, 1, 0, -1], [1, 1, 0, 0], [0, 1, 0, 1], [0, 1, 0, 1]])
    table = PropertyTable.of(codes, prompts)
    expected = {
        "IO": [[1, 4 / 6, 0, 0], [0, 0, 0, 0], [0, 2 / 5, 0, 2 / 3], [0, 2 / 5, 0, 2 / 3]],
        "S": [[0, 2 / 5, 0, 2 / 3], [1, 4 / 6, 0, 0], [0, 2 / 5, 0, 2 / 3], [0, 0, 0, 0]],
        "Pos": [[2 / 4, 4 / 6, 0, 2 / 4], [2 / 4, 4 / 6, 0, 2 / 4]],
        "1st name": [[2 / 4, 4 / 6, 0, 2 / 4], [2 / 3, 2 / 5, 0, 0], [0, 0, 0, 0], [0, 2 / 5, 0, 2 / 3]],
        "2nd name": [[2 / 3, 2 / 5, 0, 0], [2 / 3, 2 / 5, 0, 0], [0, 4 / 6, 0, 1], [0, 0, 0, 0]],
        "any name": [[4 / 5, 6 / 7, 0, 2 / 5], [1, 4 / 6, 0, 0], [0, 4 / 6, 0, 1], [0, 2 / 5, 0, 2 / 3]],
        "gender of S": [[0, 4 / 6, 0, 1], [1, 4 / 6, 0, 0]],
    }
    assert table.f1.keys() == expected.keys()
    for family, rows in expected.items():
        torch.testing.assert_close(
            table.f1[family], torch.tensor(rows), msg=lambda text, name=family: f"{name}: {text}"
        )
    assert table.active.tolist() == [True, True, False, True]
    assert table.present["IO"].tolist() == [True, False, True, True]
    # The union of c and d as IO is latent 3; all names together are latent 1.
    assert table.unions["IO"].f1.tolist() == [1, 1, 0, 1]
    assert table.unions["IO"].length.tolist()[:2] == [1, 3]
    assert table.best.tolist() == [1, 1, 0, 1]
    assert table.meaning(0)[1:] == ("IO", ("a",), 1.0)
    assert table.meaning(3)[1:] == ("IO", ("c", "d"), 1.0)


def test_a_property_without_unions_is_named_too(prompts: Prompts) -> None:
    table = PropertyTable.of(codes_of([[1], [0], [0], [1]]), prompts)  # pattern ABB, and nothing else
    assert table.meaning(0)[1:] == ("Pos", ("ABB",), 1.0)


@given(st.data())
def test_unions_are_what_counting_them_finds(data: st.DataObject) -> None:
    n, n_names, most = data.draw(st.integers(1, 12)), data.draw(st.integers(3, 6)), data.draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**20)))
    prompts = unwritten_prompts(n, n_names, generator)
    family = data.draw(st.sampled_from([family for family in families(prompts) if family.unions]))
    active = torch.rand(n, 4, generator=generator) < 0.4
    codes = codes_of(active)
    f1 = f1_scores(codes, family)
    found = best_unions(codes, family, f1, most)
    for latent in range(4):
        order = found.names[latent].tolist()
        scores = [f1[name, latent].item() for name in order]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == pytest.approx(float(f1[:, latent].max()))
        by_length = [counted(active[:, latent], family, order[:length]) for length in range(1, len(order) + 1)]
        assert float(found.f1[latent]) == pytest.approx(max(by_length))
        assert by_length[int(found.length[latent]) - 1] == pytest.approx(max(by_length))
        assert len(order) == min(most, n_names)


def counted(active: Tensor, family: Family, names: list[int]) -> float:
    inside = torch.isin(family.labels, torch.tensor(names)).any(1)
    total = int(active.sum()) + int(inside.sum())
    return 2 * int((active & inside).sum()) / total if total else 0.0
