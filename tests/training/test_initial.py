"""Scale, centre and first weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from saelab.errors import UserError
from saelab.training.initial import geometric_median, initial_weights, input_scale, random_directions


def test_scale_by_hand() -> None:
    # |x|² = 25 and 75, mean 50, d = 2: scale² = 2/50.
    assert input_scale(torch.tensor([[3.0, 4.0], [5.0, 50**0.5]])) == pytest.approx(0.2)


def test_scaled_inputs_have_mean_square_norm_d() -> None:
    x = torch.randn(500, 7) * 13 + 2
    assert (x * input_scale(x)).square().sum(1).mean().item() == pytest.approx(7, rel=1e-5)


@pytest.mark.parametrize("bad", [torch.zeros(3, 2), torch.full((3, 2), torch.nan)])
def test_nothing_to_scale(bad: torch.Tensor) -> None:
    with pytest.raises(UserError, match="mean squared norm"):
        input_scale(bad)


def test_median_of_a_triangle_is_its_fermat_point() -> None:
    # Equilateral triangle: every centre coincides. And far outliers move the mean but hardly the median.
    triangle = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 3**0.5]])
    torch.testing.assert_close(geometric_median(triangle), torch.tensor([1.0, 3**-0.5]), rtol=1e-4, atol=1e-4)
    cloud = torch.randn(999, 3, generator=torch.Generator().manual_seed(0))
    assert geometric_median(torch.cat([cloud, torch.full((9, 3), 1e4)])).norm() < 0.2


def test_weights_start_tied_with_unit_rows() -> None:
    weights = initial_weights(torch.randn(50, 6), d_sae=30, seed=1)
    assert torch.equal(weights.W_enc, weights.W_dec)
    assert weights.W_enc.data_ptr() != weights.W_dec.data_ptr()
    torch.testing.assert_close(weights.W_dec.norm(dim=1), torch.ones(30))


@given(st.integers(1, 120), st.integers(1, 9), st.sampled_from([16, 32, 48, 1024]), st.data())
def test_some_rows_are_those_of_the_whole_table(rows: int, width: int, block: int, data: st.DataObject) -> None:
    whole = normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(5)), dim=1)
    first = data.draw(st.integers(0, rows))
    wanted = range(first, data.draw(st.integers(first, rows)))
    found = random_directions(rows, width, torch.Generator().manual_seed(5), wanted, block)
    assert torch.equal(found, whole[wanted.start : wanted.stop])


def test_a_shard_of_a_transcoder_begins_as_its_part_of_the_whole() -> None:
    x, target = torch.randn(2, 50, 6)
    whole = initial_weights(x, 30, 1, target[:, :4])
    part = initial_weights(x, 30, 1, target[:, :4], range(11, 23))
    for name, tensor in part.named().items():
        expected = whole.named()[name]
        assert torch.equal(tensor, expected if name == "b_dec" else expected[11:23]), name
