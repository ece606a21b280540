"""The auxiliary loss: its gradients against dense autograd in float64, and on how many tokens it is taken."""

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelab.kernels.backend import Backend
from saelab.kernels.codes import SparseCodes
from saelab.kernels.reference import ReferenceBackend
from saelab.kernels.sparse import SparseBackend
from saelab.training.auxiliary import auxiliary_gradients, auxiliary_size, auxiliary_stride
from saelab.training.config import AuxK
from saelab.training.exchange import Tokens
from saelab.training.gates.gate import GateInput
from saelab.training.gradients import Gradients
from saelab.training.initial import Weights
from saelab.training.rows import RowGradient
from tests.training.test_gradients import B, D, F, K, batch_of, leaves, trainer_of


class Unasked(ReferenceBackend):
    """Keeps what does not fire, and all latents, as a backend does that the host must not wait for."""

    def select_firing(self, scores: Float[Tensor, "B F"], k: int) -> SparseCodes:
        codes = self.select_token(scores, k)
        return codes.with_values(codes.values.relu())

    def starved(self, deficit: Float[Tensor, "F"]) -> Int[Tensor, "n"] | None:
        return None


def zero_gradients(weights: Weights) -> Gradients:
    return Gradients(
        RowGradient(weights.W_enc),
        RowGradient(weights.W_dec),
        torch.zeros_like(weights.b_enc),
        torch.zeros_like(weights.b_dec),
    )


def given_of(
    weights: Weights, centred: Tensor, target: Tensor, backend: Backend, gradient: Tensor | None = None
) -> GateInput:
    return GateInput(weights, centred, target, gradient, K, 0.5, backend, Tokens((range(len(centred)),)), centred)


BACKENDS = pytest.mark.parametrize("backend", [ReferenceBackend(), SparseBackend(), Unasked()], ids=lambda b: b.name)


@BACKENDS
@pytest.mark.parametrize("transcoder", [False, True])
@pytest.mark.parametrize("k_aux", [2, 64])
@pytest.mark.parametrize("every", [3, 7])  # a third of all latents, or so few that they get a table of their own
@pytest.mark.parametrize("graded", [False, True], ids=["aux_k", "aux_zipf"])
def test_auxiliary_loss(graded: bool, every: int, k_aux: int, transcoder: bool, backend: Backend) -> None:
    weights, batch = trainer_of({}, transcoder).weights, batch_of(transcoder)
    x = batch.x
    generator = torch.Generator().manual_seed(1)
    deficit = (torch.arange(F) % every == 0).double()
    if graded:
        deficit *= torch.rand(F, dtype=torch.float64, generator=generator)
    error = torch.randn(batch.target.shape, dtype=torch.float64, generator=generator)
    ours = zero_gradients(weights)
    given = given_of(weights, x - weights.centre, batch.target, backend)
    loss = auxiliary_gradients(given, error, deficit, k_aux, 1 / 32, ours)

    w = leaves(weights)
    pulled = ((x - w.centre) @ w.W_enc.T + w.b_enc).relu() * deficit
    top = pulled.topk(min(k_aux, F), dim=1)
    f = torch.zeros(B, F, dtype=torch.float64).scatter(1, top.indices, top.values)
    expected = (error - f @ w.W_dec).square().sum() / (error - error.mean(0)).square().sum()
    expected = expected * min(deficit.sum().item() / k_aux, 1) / 32
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-12)
    for name, tensor in w.named().items():
        grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad  # a transcoder's b_dec has none
        torch.testing.assert_close(ours.named()[name], grad, rtol=1e-9, atol=1e-12, msg=name)


@BACKENDS
def test_without_starved_latents_the_auxiliary_loss_is_nothing(backend: Backend) -> None:
    weights, x = trainer_of({}).weights, batch_of().x
    ours = zero_gradients(weights)
    none = torch.zeros(F, dtype=torch.float64)
    given = given_of(weights, x, x, backend)
    assert auxiliary_gradients(given, x, none, 4, 1.0, ours) == 0
    assert all(not tensor.any() for tensor in ours.named().values())


@BACKENDS
def test_an_error_without_spread_is_nothing_to_learn_from(backend: Backend) -> None:
    weights, x = trainer_of({}).weights, batch_of().x
    ours = zero_gradients(weights)
    given = given_of(weights, x, x, backend)
    alike = torch.ones(B, D, dtype=torch.float64)
    assert auxiliary_gradients(given, alike, torch.ones(F, dtype=torch.float64), 4, 1.0, ours) == 0
    assert all(not tensor.any() for tensor in ours.named().values())


def test_k_aux_is_a_power_of_two_near_half_the_width() -> None:
    assert [auxiliary_size(AuxK(), width) for width in (768, 256, 1, 5)] == [512, 128, 1, 2]
    assert auxiliary_size(AuxK(k_aux=7), 768) == 7


def test_every_how_many_th_token_by_hand() -> None:
    # 512 latents a token where 4 · 32 are to be had: every 4th. Of 2,048 tokens 1,024 are to be left: every 2nd.
    assert auxiliary_stride(AuxK(), 512, 32, batch=4096) == 4
    assert auxiliary_stride(AuxK(), 512, 32, batch=2048) == 2
    assert auxiliary_stride(AuxK(), 512, 32, batch=100) == 1
    assert auxiliary_stride(AuxK(), 32, 32, batch=4096) == 1
    assert auxiliary_stride(AuxK(stride=3), 512, 32, batch=4096) == 3


@pytest.mark.parametrize("product_is_there", [True, False])
def test_some_tokens_are_a_batch_of_their_own(product_is_there: bool) -> None:
    weights, batch = trainer_of({}).weights, batch_of()
    given = given_of(weights, batch.x - weights.centre, batch.x, SparseBackend(), batch.gradient)
    z = given.centred @ weights.W_enc.T + weights.b_enc
    if product_is_there:
        _ = given.z
    some, latents = given.every(4, 1), torch.tensor([2, 5, 11])
    torch.testing.assert_close(some.z_of(latents), z[1::4, latents])
    torch.testing.assert_close(some.z_of(None), z[1::4])
    assert torch.equal(some.target, batch.x[1::4])
    assert some.gradient is not None
    assert batch.gradient is not None
    assert torch.equal(some.gradient, batch.gradient[1::4])


def test_a_step_takes_turns_with_its_tokens() -> None:
    """At step 5 every 3rd token from the third on: what the others are has no part in the auxiliary loss."""
    settings = {"sae.aux.kind": "aux_k", "sae.aux.stride": 3, "sae.aux.k_aux": 4, "sae.dead_after": 1}
    trainer, batch = trainer_of(settings), batch_of()
    trainer.statistics.idle[::2] = 1
    whole = trainer.look(batch)
    x, _ = trainer.scaling.apply(batch)
    error = x - (trainer.backend.decode(whole.codes, trainer.weights.W_dec) + trainer.weights.b_dec)
    given = given_of(trainer.weights, x - trainer.weights.centre, x, trainer.backend)
    dead = trainer.statistics.dead(1)
    unused = zero_gradients(trainer.weights)
    expected = auxiliary_gradients(given.every(3, 2), error[2::3], dead, 4, 1 / 32, unused)
    assert float(whole.aux_loss) == pytest.approx(float(expected), rel=1e-12)
    assert float(expected) > 0
