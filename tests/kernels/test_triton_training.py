"""A step of training on Triton kernels moves the weights as the reference does."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no build for this platform")

from saelab.activations.batch import ActivationBatch
from saelab.training.config import TrainConfig
from saelab.training.trainer import Trainer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
B, D, F = 8, 6, 66  # k = 2 of 66 latents: few enough for the sparse kernels


def weights_after(steps: int, backend: str, preset: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, B, D, generator=generator).to(DEVICE)
    gradient = torch.randn(steps, B, D, generator=generator).to(DEVICE)
    batches = [ActivationBatch(x[i], x[i], gradient[i], torch.arange(B, device=DEVICE)) for i in range(steps)]
    sae = {"preset": preset, "d_sae": F, "k": 2, "aux": {"kind": "none"}}
    if preset == "feature-choice":
        sae["allocation"] = {"kind": "feature", "budgets": "uniform", "warmup_fraction": 0}
    config = TrainConfig.model_validate(
        {"sae": sae, "tokens": B * 10, "batch": B, "buffer": B, "backend": backend, "optimizer": {"lr": 0.01}}
    )
    trainer = Trainer.begin(config, batches[0])
    # While W_enc is W_dec some gradients are rounding alone, of which Adam's first step would take the sign.
    trainer.weights.W_enc += torch.randn(F, D, generator=generator).to(DEVICE)
    for batch in batches:
        trainer.step(batch)
    assert trainer.backend.name == backend
    return trainer.weights.named()


@pytest.mark.parametrize("preset", ["topk", "mutual-choice", "feature-choice", "gradient"])
def test_a_step_is_the_references(preset: str) -> None:
    ours, theirs = weights_after(1, "triton", preset), weights_after(1, "reference", preset)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-5, msg=name)
