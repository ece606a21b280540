"""The hand-written backward of every architecture, against dense autograd in float64."""

import pytest
import torch
from torch import Tensor

from saelab.dictionaries.allocation import FeatureAllocation, MutualAllocation, TokenAllocation, uniform_shares
from saelab.kernels.backend import choose
from saelab.training.gradients import Gradients, auxiliary_gradients, reconstruction_gradients
from saelab.training.initial import Weights

B, D, F, K = 12, 5, 20, 3
ALLOCATIONS = {
    "token": lambda: TokenAllocation(),
    "mutual": lambda: MutualAllocation(),
    "feature": lambda: FeatureAllocation(uniform_shares(F)),
}


def problem(seed: int = 0) -> tuple[Weights, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Weights(random(F, D), random(F, D), random(F), random(D)), random(B, D)


def leaves(weights: Weights) -> Weights:
    return Weights(**{name: tensor.clone().requires_grad_() for name, tensor in weights.named().items()})


def assert_equal_gradients(gradients: Gradients, autograd: Weights) -> None:
    for name, tensor in autograd.named().items():
        assert tensor.grad is not None
        torch.testing.assert_close(gradients.named()[name], tensor.grad, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_reconstruction(allocation: str, straight_through: bool, backend: str) -> None:
    weights, x = problem()
    kernels = choose(backend)  # type: ignore[arg-type]
    centred = x - weights.b_dec
    z = centred @ weights.W_enc.T + weights.b_enc
    kept = ALLOCATIONS[allocation]().select(z, K, kernels)
    codes = kept.with_values(kept.values.relu())
    slope = torch.ones_like(kept.values) if straight_through else (kept.values > 0).double()
    error = x - (kernels.decode(codes, weights.W_dec) + weights.b_dec)
    ours = reconstruction_gradients(weights, centred, codes, slope, -2 * error / error.numel(), kernels)

    w = leaves(weights)
    dense_z = (x - w.b_dec) @ w.W_enc.T + w.b_enc
    mask = kept.with_values(torch.ones_like(kept.values)).to_dense()
    f = dense_z.relu() * mask
    if straight_through:  # the value of relu, the gradient of the identity
        f = (dense_z * mask) + (f - dense_z * mask).detach()
    (x - (f @ w.W_dec + w.b_dec)).square().mean().backward()
    assert_equal_gradients(ours, w)


def zero_gradients(weights: Weights) -> Gradients:
    return Gradients(**{name: torch.zeros_like(tensor) for name, tensor in weights.named().items()})


@pytest.mark.parametrize("k_aux", [2, 64])
@pytest.mark.parametrize("graded", [False, True], ids=["aux_k", "aux_zipf"])
def test_auxiliary_loss(graded: bool, k_aux: int) -> None:
    weights, x = problem()
    generator = torch.Generator().manual_seed(1)
    deficit = (torch.arange(F) % 3 == 0).double()
    if graded:
        deficit *= torch.rand(F, dtype=torch.float64, generator=generator)
    error = torch.randn(B, D, dtype=torch.float64, generator=generator)
    ours = zero_gradients(weights)
    centred = x - weights.b_dec
    z = centred @ weights.W_enc.T + weights.b_enc
    loss = auxiliary_gradients(weights, centred, z, error, deficit, k_aux, 1 / 32, ours, choose())

    w = leaves(weights)
    pulled = ((x - w.b_dec) @ w.W_enc.T + w.b_enc).relu() * deficit
    top = pulled.topk(min(k_aux, F), dim=1)
    f = torch.zeros(B, F, dtype=torch.float64).scatter(1, top.indices, top.values)
    expected = (error - f @ w.W_dec).square().sum() / (error - error.mean(0)).square().sum()
    expected = expected * min(deficit.sum().item() / k_aux, 1) / 32
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert_equal_gradients(ours, w)


def test_without_starved_latents_the_auxiliary_loss_is_nothing() -> None:
    weights, x = problem()
    ours = zero_gradients(weights)
    none = torch.zeros(F, dtype=torch.float64)
    assert auxiliary_gradients(weights, x, x @ weights.W_enc.T, x, none, 4, 1.0, ours, choose()) == 0.0
    assert all(not tensor.any() for tensor in ours.named().values())
