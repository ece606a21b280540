"""Who is starved, by aux_k and by aux_zipf."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from saelab.dictionaries.zipf import ZipfFit
from saelab.training.config import AuxK, AuxZipf
from saelab.training.deficit import Deficit, zipf_deficit
from saelab.training.statistics import LatentStatistics

LAW = ZipfFit(s=1.0, q=0.0, intercept=0.0, s_error=0, q_error=0, intercept_error=0, r_squared=1, n_latents=4)


def test_deficit_by_hand() -> None:
    # Law 1/r. Densities rank the latents 1, 3, 0, 2 and expect 1, 1/2, 1/3, 1/4 of them. With c = 1:
    # latent 1: 1/1 → 0; latent 3: .25/.5 → 1/2; latent 0: .2/(1/3) → 0.4; latent 2 is dead → 1.
    densities = torch.tensor([0.2, 1.0, 0.1, 0.25], dtype=torch.float64)
    dead = torch.tensor([False, False, True, False])
    expected = torch.tensor([0.4, 0.0, 1.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(zipf_deficit(densities, dead, LAW, c=1.0), expected)


@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=20), st.data())
def test_towards_c_0_aux_zipf_is_aux_k(densities: list[float], data: st.DataObject) -> None:
    dead = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(densities), max_size=len(densities))))
    deficit = zipf_deficit(torch.tensor(densities, dtype=torch.float64), dead, LAW, c=1e-9)
    assert torch.equal(deficit, dead.double())


def test_before_anything_fired_only_idleness_counts() -> None:
    statistics = LatentStatistics(3, torch.device("cpu"))
    statistics.idle += torch.tensor([5, 9, 10])
    for aux in (AuxK(), AuxZipf()):
        assert Deficit(aux, dead_after=9)(statistics, step=0).tolist() == [0.0, 1.0, 1.0]
