"""Is the comparison of training steps fair? On equal weights every tool chooses and computes what we do, and trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.testing import assert_close

from benchmarks.steps.size import Size, read_activations, write_activations
from saelab.activations.batch import ActivationBatch
from saelab.training.config import TrainConfig
from saelab.training.initial import Weights
from saelab.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore")
SIZE = Size(d_sae=256, k=8, batch=64, d_in=32)
CPU = torch.device("cpu")


class Chosen(NamedTuple):
    """Per token: the latents that were chosen, rising; their activations; the reconstruction."""

    latents: Int[Tensor, "B k"]
    values: Float[Tensor, "B k"]
    x_hat: Float[Tensor, "B d"]

    @classmethod
    def sorted(cls, latents: Tensor, values: Tensor, x_hat: Tensor) -> Chosen:
        order = latents.argsort(dim=1)
        return cls(latents.gather(1, order), values.gather(1, order), x_hat)


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Float[Tensor, "n B d"]:
    path = tmp_path_factory.mktemp("activations") / "a.safetensors"
    write_activations(path, SIZE)
    return read_activations(path, "cpu")[0]


@pytest.fixture(scope="module")
def ours(batches: Float[Tensor, "n B d"]) -> Trainer:
    config = TrainConfig.model_validate(
        {"sae": {"preset": "topk", "d_sae": SIZE.d_sae, "k": SIZE.k, "aux": {"kind": "none"}}, "batch": SIZE.batch,
         "tokens": 1000 * SIZE.batch, "buffer": 2**10, "backend": "cpu", "device": "cpu"}
    )  # fmt: skip
    trainer = Trainer.begin(config, batch_of(batches[0]))
    for _ in range(5):  # biases and norms that are no longer those of a beginning
        trainer.step(batch_of(batches[1]))
    return trainer


def batch_of(x: Float[Tensor, "B d"]) -> ActivationBatch:
    return ActivationBatch(x, x, None, torch.arange(len(x)))


def chosen_by_us(trainer: Trainer, x: Float[Tensor, "B d"]) -> Chosen:
    codes = trainer.look(batch_of(x)).codes
    x_hat = trainer.backend.decode(codes, trainer.weights.W_dec) + trainer.weights.b_dec
    return Chosen(codes.latents.view(-1, SIZE.k), codes.values.view(-1, SIZE.k), x_hat)


def of_sparsify(trainer: Any, weights: Weights, x: Float[Tensor, "B d"]) -> Chosen:
    sae = trainer.saes["site"]
    sae.encoder.weight.data, sae.encoder.bias.data = weights.W_enc.clone(), weights.b_enc.clone()
    sae.W_dec.data, sae.b_dec.data = weights.W_dec.clone(), weights.b_dec.clone()
    out = sae(x)
    return Chosen.sorted(out.latent_indices, out.latent_acts, out.sae_out)


def of_dictionary_learning(trainer: Any, weights: Weights, x: Float[Tensor, "B d"]) -> Chosen:
    sae = trainer.ae
    sae.encoder.weight.data, sae.encoder.bias.data = weights.W_enc.clone(), weights.b_enc.clone()
    sae.decoder.weight.data, sae.b_dec.data = weights.W_dec.T.clone(), weights.b_dec.clone()
    codes, values, latents, _ = sae.encode(x, return_topk=True)
    return Chosen.sorted(latents, values, sae.decode(codes))


def of_saelens(trainer: Any, weights: Weights, x: Float[Tensor, "B d"]) -> Chosen:
    sae = trainer.sae
    sae.W_enc.data, sae.b_enc.data = weights.W_enc.T.clone(), weights.b_enc.clone()
    sae.W_dec.data, sae.b_dec.data = weights.W_dec.clone(), weights.b_dec.clone()
    codes = sae.encode(x)
    values, latents = codes.topk(SIZE.k, dim=1)
    return Chosen.sorted(latents, values, sae.decode(codes))


CHOICES = {"sparsify": of_sparsify, "dictionary_learning": of_dictionary_learning, "saelens": of_saelens}
OPTIONS = {"sparsify": {"optimizer": "signum"}}


def name(tool: ModuleType) -> str:
    return tool.__name__.rpartition(".")[2].removesuffix("_loop")


def new_trainer(tool: ModuleType) -> Any:
    more = {"optimizer": "signum", "dead": False} if name(tool) == "sparsify" else {}
    return tool.new_trainer(SIZE, CPU, **more)


def test_a_tool_chooses_what_we_choose(tool: ModuleType, ours: Trainer, batches: Float[Tensor, "n B d"]) -> None:
    x = batches[2] * ours.scaling.input
    theirs = CHOICES[name(tool)](new_trainer(tool), ours.weights, x)
    mine = chosen_by_us(ours, batches[2])
    assert (theirs.latents == mine.latents).all()
    assert_close(theirs.values, mine.values, atol=1e-4, rtol=1e-4)
    assert_close(theirs.x_hat, mine.x_hat, atol=1e-4, rtol=1e-4)


def reconstructed(tool: ModuleType, trainer: Any, x: Float[Tensor, "B d"]) -> Float[Tensor, "B d"]:
    if name(tool) == "sparsify":
        return trainer.saes["site"](x).sae_out
    return (trainer.ae if name(tool) == "dictionary_learning" else trainer.sae)(x)


@pytest.fixture
def built(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainers that `build` makes, so that a test can look into them."""
    made: list[Any] = []
    make = tool.new_trainer

    def recorded(*given: Any, **more: Any) -> Any:
        made.append(make(*given, **more))
        return made[-1]

    monkeypatch.setattr(tool, "new_trainer", recorded)
    return made


def trained(tool: ModuleType, batches: list[Tensor], dead: bool) -> None:
    """Runs the tool's loop over some batches. Sparsify's own would go on for ever and ends with the batches."""
    given: Iterator[Tensor] = iter(batches)
    loop = tool.build(SIZE, CPU, dead, **OPTIONS.get(name(tool), {}))
    with pytest.raises(StopIteration) if name(tool) == "sparsify" else nullcontext():
        loop(given)
    assert next(given, None) is None


def test_the_loop_trains(tool: ModuleType, built: list[Any], batches: Float[Tensor, "n B d"]) -> None:
    trained(tool, [batches[0]], dead=False)
    trained(tool, [batches[0]] * 60, dead=False)
    with torch.no_grad():
        once, often = ((reconstructed(tool, trainer, batches[0]) - batches[0]).square().sum() for trainer in built)
    assert often < 0.98 * once


def test_dead_latents_take_part(tool: ModuleType, built: list[Any], batches: Float[Tensor, "n B d"]) -> None:
    """A silenced latent is never among the k best, so what moves its decoder row is the auxiliary loss."""
    trained(tool, [batches[0]], dead=True)
    trained(tool, [batches[0]] * 3, dead=True)
    first, last = (decoder(tool, trainer) for trainer in built)
    assert ((first - last).abs().amax(1)[SIZE.dead()] > 0).all()


def decoder(tool: ModuleType, trainer: Any) -> Float[Tensor, "F d"]:
    if name(tool) == "sparsify":
        return trainer.saes["site"].W_dec.data
    return trainer.ae.decoder.weight.data.T if name(tool) == "dictionary_learning" else trainer.sae.W_dec.data
