"""What a step holds in memory beside the trained tensors: counted tensor by tensor as torch makes and frees them."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from saelab.activations.batch import ActivationBatch
from saelab.kernels import selection, sparse
from saelab.training.config import TrainConfig
from saelab.training.trainer import Trainer

B, D, F, K = 1024, 256, 8192, 4
ACTIVATIONS, SCORES = 4 * B * D, 4 * B * F  # bytes


class Meter(TorchDispatchMode):
    """Bytes of all storages that came to be within it: now, and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if storage._cdata not in given and storage._cdata not in self._seen:
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:

        def freed(_: Any, key: int = storage._cdata, size: int = storage.nbytes()) -> None:
            self.now -= size
            del self._seen[key]

        self._seen[storage._cdata] = weakref.ref(storage, freed)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    """Of sparse tensors none: they consist of tensors that were counted when they were made."""
    tensors = [leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor) and leaf.layout == torch.strided]
    return [tensor.untyped_storage() for tensor in tensors]


def peak_of_a_step(**sae: Any) -> int:
    """Bytes of tensors beside weights, moments, statistics and the batch itself."""
    x = torch.randn(B, D, generator=torch.Generator().manual_seed(0))
    batch = ActivationBatch(x, x, None, torch.arange(B))
    config = TrainConfig.model_validate(
        {"sae": {"d_sae": F, "k": K, "dead_after": 1, **sae}, "tokens": B * 10, "batch": B, "buffer": B,
         "backend": "cpu"}
    )  # fmt: skip
    trainer = Trainer.begin(config, batch)
    trainer.statistics.idle[::10] = 10**9
    with Meter() as meter:
        trainer.step(batch)
    return meter.most


def test_the_meter_by_hand() -> None:
    with Meter() as meter:
        a = torch.zeros(100)
        b = a[:50] + 1  # 400 + 200 bytes
        del a
        c = torch.ones(25)  # 200 + 100
        c.view(5, 5).add_(1)
    assert (meter.most, meter.now) == (600, 300)
    del b, c
    assert meter.now == 0


@pytest.fixture(autouse=True)
def _small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that gradients of rows are as small a part here as in training."""
    monkeypatch.setattr(sparse, "ROWS_AT_ONCE", 64)
    monkeypatch.setattr(selection, "TILE_ELEMENTS", 2**16)


@pytest.mark.parametrize(
    ("preset", "batches"), [("topk", 6), ("mutual-choice", 6), ("feature-choice", 6), ("matryoshka", 14)]
)
def test_one_table_of_scores_and_a_few_batches(preset: str, batches: int) -> None:
    settings: dict[str, Any] = {"preset": preset, "aux": {"kind": "none"}}
    if preset == "feature-choice":
        settings["allocation"] = {"kind": "feature", "budgets": "uniform", "warmup_fraction": 0}
    assert peak_of_a_step(**settings) <= SCORES + batches * ACTIVATIONS


@pytest.mark.parametrize("kind", ["aux_k", "aux_zipf"])
def test_the_auxiliary_loss_fits_beside_it(kind: str) -> None:
    assert peak_of_a_step(aux={"kind": kind}) <= SCORES + 11 * ACTIVATIONS
