"""The hand-written backward of every architecture, against dense autograd in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from saelab.activations.batch import ActivationBatch
from saelab.config import load_config
from saelab.training.config import TrainConfig
from saelab.training.gates.gate import Gate
from saelab.training.initial import Scaling, Weights
from saelab.training.trainer import Trainer

B, D, OUT, F, K = 12, 5, 7, 20, 3
LAMBDA = 0.3

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "token": {},
    "mutual": {"sae.preset": "mutual-choice"},
    "feature": {"sae.preset": "feature-choice", "sae.allocation.straight_through": False},
    "feature, straight-through": {"sae.preset": "feature-choice"},
    "gradient": {"sae.preset": "gradient", "sae.affinity.beta": 2},
    "gradient, kept as affinity": {"sae.preset": "gradient", "sae.affinity.value": "affinity"},
    "gradient, raw": {"sae.preset": "gradient", "sae.affinity.normalise": "none", "sae.allocation.kind": "mutual"},
    "gradient × feature": {"sae.preset": "gradient", "sae.allocation.kind": "feature"},
    "matryoshka": {"sae.preset": "matryoshka"},
    "token, nested": {"sae.prefixes": [0.25, 0.5, 1.0]},
    "relu": {"sae.preset": "relu"},
    "jumprelu": {"sae.preset": "jumprelu", "sae.allocation.bandwidth": 0.5, "sae.allocation.threshold": 0.3},
    "gated": {"sae.preset": "gated"},
}


def trainer_of(overrides: dict[str, Any], transcoder: bool = False, backend: str = "auto") -> Trainer:
    """A trainer in its second half, when every warm-up and phase is over, with random float64 weights."""
    fixed = (
        {"sae.allocation.penalty.coefficient": LAMBDA} if "relu" in str(overrides) or "gated" in str(overrides) else {}
    )
    config = load_config(
        TrainConfig, None,
        {"sae.d_sae": F, "sae.k": K, "sae.aux.kind": "none", "tokens": 8 * B, "batch": B, "backend": backend}
        | fixed | overrides,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    out = OUT if transcoder else D
    weights = Weights(
        random(F, D), random(F, out), random(F), random(out), input_centre=random(D) if transcoder else None
    )
    trainer = Trainer(config, weights, Scaling(1.5, (0.5, 2.0), (3, 4)) if transcoder else Scaling(1.5))
    for tensor in weights.extra.values():
        tensor += 0.1 * random(*tensor.shape)
    trainer.statistics.density += 1 / torch.arange(1, F + 1)  # as if a mutual phase had been
    trainer.done = 5
    return trainer


def batch_of(transcoder: bool = False) -> ActivationBatch:
    generator = torch.Generator().manual_seed(1)
    x, gradient, target = (torch.randn(B, n, dtype=torch.float64, generator=generator) for n in (D, D, OUT))
    return ActivationBatch(x, target if transcoder else x, gradient, torch.arange(B))


def leaves(weights: Weights) -> Weights:
    """The same weights, for autograd."""
    fresh = {name: tensor.detach().clone().requires_grad_() for name, tensor in weights.named().items()}
    extra = {name: fresh.pop(name) for name in weights.extra}
    return Weights(**fresh, extra=extra, input_centre=weights.input_centre)


class Jump(torch.autograd.Function):
    """`z · 1[z > θ]` and `1[z > θ]` with the pseudo-derivatives of arXiv 2407.14435, written for autograd."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, width: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(z, threshold)
        ctx.width = width
        above = (z > threshold).double()
        return z * above, above

    @staticmethod
    def backward(ctx: Any, grad_f: Tensor, grad_count: Tensor) -> tuple[Tensor, Tensor, None]:
        z, threshold = ctx.saved_tensors
        window = ((z - threshold).abs() < ctx.width / 2).double() / ctx.width
        to_threshold = -(threshold * grad_f + grad_count) * window
        return grad_f * (z > threshold), to_threshold.sum(0), None


def dense_loss(trainer: Trainer, w: Weights, batch: ActivationBatch, mask: Tensor) -> Tensor:
    """The loss as one would write it without any sparsity; `mask` says which matches are kept."""
    sae, gate = trainer.config.sae, trainer.gate
    x, target = trainer.scaling.apply(batch)
    z = (x - w.centre) @ w.W_enc.T + w.b_enc
    f, penalty = _activations(sae, gate, w, x, z, target, batch, mask)
    loss = torch.zeros((), dtype=torch.float64)
    for end in sae.prefix_ends():
        loss = loss + (target - f[:, :end] @ w.W_dec[:end] - w.b_dec).square().mean() / len(sae.prefix_ends())
    return loss + penalty


def _activations(
    sae: Any, gate: Gate, w: Weights, x: Tensor, z: Tensor, target: Tensor, batch: ActivationBatch, mask: Tensor
) -> tuple[Tensor, Tensor]:
    none = torch.zeros((), dtype=torch.float64)
    each = LAMBDA / target.numel()
    match sae.allocation.kind:
        case "relu":
            return z.relu(), each * z.relu().sum()
        case "jumprelu":
            f, count = Jump.apply(z, w.extra["log_threshold"].exp(), gate.bandwidth)  # type: ignore[misc,attr-defined]
            return f, each * count.sum()
        case "gated":
            gate_on = z.relu()
            magnitude = w.extra["log_gain"].exp() * ((x - w.centre) @ w.W_enc.T) + w.extra["b_mag"]
            by_gate = target - gate_on @ w.W_dec.detach() - w.b_dec.detach()
            return (z > 0) * magnitude.relu(), each * gate_on.sum() + by_gate.square().mean()
        case _:
            f = z.relu()
            if sae.affinity.kind == "gradient" and sae.affinity.value == "affinity":
                pull = (batch.gradient @ w.W_dec.detach().T).abs()  # type: ignore[operator]
                f = f * (1 + sae.affinity.beta * pull / pull.mean())
            f = f * mask
            if getattr(sae.allocation, "straight_through", False):  # the value of relu, the gradient of the identity
                f = z * mask + (f - z * mask).detach()
            return f, none


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize(
    ("name", "transcoder"),
    [(name, False) for name in ARCHITECTURES]
    + [(name, True) for name in ARCHITECTURES if "gradient" not in name],  # refused: ∇_x L belongs to the input site
)
def test_every_architecture(name: str, transcoder: bool, backend: str) -> None:
    trainer, batch = trainer_of(ARCHITECTURES[name], transcoder, backend), batch_of(transcoder)
    seen = trainer.look(batch)
    mask = seen.codes.with_values(torch.ones_like(seen.codes.values)).to_dense()
    w = leaves(trainer.weights)
    dense_loss(trainer, w, batch, mask).backward()
    for key, tensor in w.named().items():
        ours = seen.gradients.named()[key]
        assert tensor.grad is not None
        torch.testing.assert_close(ours, tensor.grad, rtol=1e-6, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")
