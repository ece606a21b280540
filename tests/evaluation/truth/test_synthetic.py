"""Everything that the synthetic truth claims about itself, on a large sample."""

import pytest
import torch
from torch import Tensor

from saelab.config import build
from saelab.errors import UserError
from saelab.evaluation.truth.config import TruthConfig
from saelab.evaluation.truth.synthetic import TRAINING, Drawn, Truth

TOKENS = 200_000


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth.make(
        TruthConfig(d_in=24, n_features=60, active=4, exponent=1.2, shift=5, families=8, children=3, seed=3)
    )


@pytest.fixture(scope="module")
def drawn(truth: Truth) -> Drawn:
    return truth.draw(TOKENS, 9)


@pytest.fixture(scope="module")
def fires(drawn: Drawn) -> Tensor:
    return drawn.codes.to_dense() > 0


def close_to_share(count: Tensor, share: Tensor, n: Tensor | int) -> bool:
    """Whether counts are within five standard errors of `share · n`."""
    return bool(((count - share * n).abs() < 5 * (share * (1 - share) * n).sqrt() + 1).all())


def test_directions_are_unit_vectors_that_interfere_mildly() -> None:
    truth = Truth.make(TruthConfig(d_in=64, n_features=512))
    torch.testing.assert_close(truth.directions.norm(dim=1), torch.ones(512))
    cosines = (truth.directions @ truth.directions.T)[~torch.eye(512, dtype=torch.bool)]
    assert float(cosines.square().mean().sqrt()) == pytest.approx(1 / 8, rel=0.02)


def test_frequencies_follow_the_law(truth: Truth, fires: Tensor) -> None:
    rank = torch.arange(1, 61, dtype=torch.float64)
    law = (rank + 5) ** -1.2
    torch.testing.assert_close(truth.frequency, 4 * law / law.sum())
    assert close_to_share(fires.sum(0), truth.frequency, TOKENS)
    assert float(fires.sum(1).double().mean()) == pytest.approx(4, rel=0.01)


def test_children_fire_only_where_their_parent_does(truth: Truth, fires: Tensor) -> None:
    children = (truth.parent != torch.arange(60)).nonzero()[:, 0]
    assert len(children) == 24
    assert truth.parent[children].bincount().tolist() == [3] * 8
    assert truth.parent[truth.parent[children]].equal(truth.parent[children])  # parents have none themselves
    assert fires[:, truth.parent[children]][fires[:, children]].all()
    assert fires[:, children].any(0).all()


def siblings(truth: Truth, exclusive: bool) -> list[tuple[int, int, int]]:
    """(parent, one child, another child)."""
    families = [(truth.parent == p).nonzero()[1:, 0].tolist() for p in range(8)]
    chosen = [f for f in families if (int(truth.family[f[0]]) >= 0) == exclusive]
    return [(int(truth.parent[a]), a, b) for f in chosen for a, b in ((f[0], f[1]), (f[0], f[2]), (f[1], f[2]))]


def test_half_of_the_families_exclude_each_other(truth: Truth, fires: Tensor) -> None:
    pairs = siblings(truth, exclusive=True)
    assert len(pairs) == 4 * 3
    assert not any((fires[:, a] & fires[:, b]).any() for _, a, b in pairs)


def test_other_siblings_are_independent_given_their_parent(truth: Truth, fires: Tensor) -> None:
    pairs = torch.tensor(siblings(truth, exclusive=False))
    assert len(pairs) == 4 * 3
    parent, a, b = truth.frequency[pairs].unbind(1)
    together = (fires[:, pairs[:, 1]] & fires[:, pairs[:, 2]]).sum(0)
    assert close_to_share(together, a * b / parent, TOKENS)


def test_features_without_a_parent_are_independent(truth: Truth, fires: Tensor) -> None:
    roots = (truth.parent == torch.arange(60)).nonzero()[:, 0]
    counts = fires[:, roots].float().T @ fires[:, roots].float()
    expected = torch.outer(truth.frequency[roots], truth.frequency[roots])
    other = ~torch.eye(len(roots), dtype=torch.bool)
    assert close_to_share(counts[other], expected[other], TOKENS)


def test_magnitudes_are_positive_and_have_their_mean_and_spread(truth: Truth, drawn: Drawn, fires: Tensor) -> None:
    values = drawn.codes.to_dense()
    n = fires.sum(0)
    mean = values.sum(0) / n
    spread = (torch.exp(torch.tensor(0.3**2)) - 1).sqrt()  # of a lognormal of mean 1
    assert bool(((mean / truth.magnitude - 1).abs() < 5 * spread / n.sqrt()).all())
    ratio = drawn.codes.values / truth.magnitude[drawn.codes.latents]
    assert float(ratio.std()) == pytest.approx(float(spread), rel=0.02)
    assert float(drawn.codes.values.min()) > 0
    assert float(truth.magnitude.log().std()) == pytest.approx(0.3, rel=0.3)


def test_activations_are_their_features_an_offset_and_noise(truth: Truth, drawn: Drawn) -> None:
    noise = drawn.x - drawn.codes.to_dense() @ truth.directions - truth.offset
    assert float(noise.square().sum(1).mean().sqrt()) == pytest.approx(0.1, rel=0.01)
    assert float(noise.mean(0).norm()) < 0.002
    assert float(truth.offset.norm()) == pytest.approx(2.0)


def test_draws_are_a_function_of_the_settings_and_the_stream(truth: Truth) -> None:
    assert torch.equal(Truth.make(truth.config).draw(8, 1, 2).x, truth.draw(8, 1, 2).x)
    assert not torch.equal(truth.draw(8, 1, 3).x, truth.draw(8, 1, 2).x)


def test_held_out_tokens_are_never_trained_on(truth: Truth) -> None:
    held_out = list(truth.held_out(100, batch_size=32))
    assert sum(drawn.codes.rows for drawn in held_out) == 128
    trained = torch.cat([truth.draw(32, TRAINING, 0, number).x for number in range(4)])
    apart = torch.cdist(torch.cat([drawn.x for drawn in held_out]), trained)
    assert float(apart.min()) > 1e-3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"active": 30, "n_features": 20, "families": 0}, "would fire on"),
        ({"families": 10, "children": 3, "n_features": 40, "exponent": 0.01}, "too few features are rare enough"),
        ({"families": 20, "children": 3, "n_features": 40}, "20 families of 1 \\+ 3 features are more than"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Truth.make(build(TruthConfig, settings, where="here"))
