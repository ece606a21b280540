"""A training step on Triton kernels gives the host nothing to wait for: no number is fetched, no size depends on data.

On a GPU torch itself can refuse to wait. Without one, the operations that would wait are refused by name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

pytest.importorskip("triton", reason="Triton has no build for this platform")

from saelab.activations.batch import ActivationBatch
from saelab.disk import RunPaths
from saelab.kernels.product import one_dnn_is_exact
from saelab.kernels.triton import adam, feature, groups, launch, mutual, products, sums, token
from saelab.training.config import TrainConfig
from saelab.training.log import MetricsLog
from saelab.training.trainer import Trainer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
B, D, F = 16, 6, 66  # matches on more than 16 latents: what the law of aux_zipf is fitted to
# Fetch a number; make a tensor whose size depends on data; send a number that the host has just made.
WAIT = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "unique2", "_unique2", "bincount",
    "lift_fresh",
}  # fmt: skip


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAIT or (name in ("index", "index_put_") and any(_is_mask(index) for index in args[1])):
            raise AssertionError(f"{name} would make the host wait")
        return func(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


@contextmanager
def no_waiting() -> Iterator[None]:
    if DEVICE.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return

    one_dnn_is_exact()  # asked once, of the CPU alone

    def interpret(*arguments: Any, **constants: Any) -> None:
        with _disable_current_modes():  # Triton's interpreter reads numbers as it likes
            launch.launch(*arguments, **constants)

    with NoWaiting():
        modules = (adam, feature, groups, mutual, products, sums, token)
        patches = [patch.object(module, "launch", interpret) for module in modules]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in patches:
                each.stop()


def trainer_of(preset: str, aux: str, batch: ActivationBatch) -> Trainer:
    sae: dict[str, Any] = {"preset": preset, "d_sae": F, "k": 2, "dead_after": 1, "aux": {"kind": aux}}
    if preset == "feature-choice":
        sae["allocation"] = {"kind": "feature", "budgets": "uniform", "warmup_fraction": 0}
    if aux == "aux_zipf":
        sae["aux"]["k_aux"] = 2
    config = TrainConfig.model_validate(
        {"sae": sae, "tokens": B * 10, "batch": B, "buffer": B, "backend": "triton", "optimizer": {"lr": 0.01}}
    )
    trainer = Trainer.begin(config, batch)
    trainer.check_every = 1000
    return trainer


@pytest.mark.parametrize(
    ("preset", "aux"),
    [("topk", "aux_k"), ("topk", "aux_zipf"), ("mutual-choice", "none"), ("feature-choice", "none"),
     ("gradient", "none")],
)  # fmt: skip
def test_a_step_waits_for_nothing(preset: str, aux: str, tmp_path: Any) -> None:
    if preset == "feature-choice" and DEVICE.type == "cpu":
        pytest.skip("without a GPU, budgets, which are counted on the host, look like tensors of the device")
    x, gradient = torch.randn(2, B, D, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    batch = ActivationBatch(x, x, gradient, torch.arange(B, device=DEVICE))
    trainer, log = trainer_of(preset, aux, batch), MetricsLog(RunPaths(tmp_path))
    if aux == "aux_zipf" or DEVICE.type == "cuda":
        log.add(trainer.step(batch))  # kernels are compiled
        deficit = trainer.deficit
        if deficit is not None:
            deficit(trainer.statistics, trainer.done)  # the law of aux_zipf is fitted
    before = trainer.weights.W_enc.clone()
    with no_waiting():
        log.add(trainer.step(batch))
    assert not torch.equal(trainer.weights.W_enc, before)


def test_what_waits_is_refused() -> None:
    if DEVICE.type == "cpu":
        mask = torch.tensor([True, False])
        with no_waiting():
            for waits in (lambda: bool(mask.any()), mask.nonzero, lambda: mask[mask], lambda: torch.tensor(1.0)):
                with pytest.raises(AssertionError, match="would make the host wait"):
                    waits()
