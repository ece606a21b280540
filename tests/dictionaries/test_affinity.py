"""The gradient affinity: z (1 + β |g| / mean |g|), its mean taken over all ranks."""

import torch
from torch import Tensor

from saelab.dictionaries import affinity
from saelab.dictionaries.config import ActivationAffinity, GradientAffinity
from saelab.ranks.axis import Axis
from saelab.ranks.mesh import Mesh

Z = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
GRADIENT = torch.tensor([[1.0], [-3.0]])
W_DEC = torch.tensor([[1.0], [0.5]])  # |g| = [[1, 0.5], [3, 1.5]], mean 1.5


class WithAnother(Axis):
    """Two ranks, of which the other one has this to add."""

    def __init__(self, other: list[float]) -> None:
        super().__init__(0, 2)
        self.other = torch.tensor(other, dtype=torch.float64)

    def sum(self, tensor: Tensor, purpose: str) -> Tensor:
        return tensor + self.other


def test_mean_one_by_hand() -> None:
    scores = affinity.scores(GradientAffinity(beta=3), Z, GRADIENT, W_DEC)
    torch.testing.assert_close(scores, Z * (1 + 3 * torch.tensor([[1.0, 0.5], [3.0, 1.5]]) / 1.5))


def test_the_mean_is_that_of_all_ranks() -> None:
    # The other rank has |g| = 18 in 2 pairs: (6 + 18) / (4 + 2) = 4.
    mesh = Mesh()
    mesh.world = WithAnother([18.0, 2.0])
    scores = affinity.scores(GradientAffinity(beta=3), Z, GRADIENT, W_DEC, mesh=mesh)
    torch.testing.assert_close(scores, Z * (1 + 3 * torch.tensor([[1.0, 0.5], [3.0, 1.5]]) / 4))


def test_without_normalisation_nothing_is_asked_of_other_ranks() -> None:
    mesh = Mesh()
    mesh.world = WithAnother([18.0, 2.0])
    raw = GradientAffinity(beta=3, normalise="none")
    expected = Z * (1 + 3 * torch.tensor([[1.0, 0.5], [3.0, 1.5]]))
    torch.testing.assert_close(affinity.scores(raw, Z, GRADIENT, W_DEC, mesh=mesh), expected)
    assert affinity.scores(ActivationAffinity(), Z, None, W_DEC, mesh=mesh) is Z
