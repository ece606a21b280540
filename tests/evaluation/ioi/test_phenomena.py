"""Occlusion and over-splitting: counted by hand, and as the toy models have them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from saelab.config import load_config
from saelab.evaluation.ioi import toys
from saelab.evaluation.ioi.features import Features, of_dictionary
from saelab.evaluation.ioi.phenomena import named_share, occlusion, splitting
from saelab.evaluation.ioi.properties import PropertyTable
from saelab.evaluation.ioi.supervised import Design, fit
from saelab.evaluation.ioi.task_saes import train_on
from saelab.kernels.codes import SparseCodes
from saelab.training.config import TrainConfig


def codes_of(active: list[list[int]] | Tensor) -> SparseCodes:
    values = torch.as_tensor(active).float()
    return SparseCodes.from_mask(values, values != 0)


def trainer(d_sae: int, k: int, steps: int = 300) -> Callable[[Tensor], Features]:
    """What makes a TopK dictionary of some activations."""
    values = {
        "sae.d_sae": d_sae, "sae.k": k, "sae.dead_after": 20_000, "tokens": 512 * steps, "batch": 512, "buffer": 512,
        "optimizer.lr": 5e-3,
    }  # fmt: skip
    config = load_config(TrainConfig, None, values)
    return lambda x: of_dictionary("TopK", train_on(x, config, toys.ORIGIN))


def test_splitting_by_hand() -> None:
    # Value 0 is the first four of six prompts. Latent 0 has two of them (F1 2/3); with latent 2, which has another and
    # one wrong prompt, it is 2·3/8; with latent 1, which has the last, 2·3/7. Then latent 2 adds: 2·4/9.
    active = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    value = torch.tensor([0, 0, 0, 0, 1, 1])
    found = splitting(codes_of(active), value, of=0)
    assert found.latents == (0, 1, 2)
    assert found.f1 == pytest.approx((4 / 6, 6 / 7, 8 / 9))
    assert splitting(codes_of(active), value, of=1).latents == (3, 2)
    assert splitting(codes_of(torch.zeros(6, 2)), value, of=0).latents == ()


def test_named_values_by_hand() -> None:
    prompts = toys.unwritten_prompts(600, 12, torch.Generator().manual_seed(0))
    active = torch.stack([prompts.io == 0, prompts.io == 1, prompts.pos == 1, prompts.s >= 0], dim=1)
    table = PropertyTable.of(codes_of(active), prompts)
    assert named_share(table, "IO") == pytest.approx(2 / 12)
    assert named_share(table, "S") == 0
    assert named_share(table, "Pos") == 1  # ABB by the latent that is always active, F1 about 2/3


def test_names_that_do_not_occur_do_not_count() -> None:
    prompts = toys.unwritten_prompts(600, 12, torch.Generator().manual_seed(0))
    some = prompts[prompts.io < 2]
    table = PropertyTable.of(codes_of((some.io == 0)[:, None]), some)
    assert named_share(table, "IO") == 0.5


def test_a_small_s_is_drowned_by_a_large_io_and_comes_back_as_it_fades() -> None:
    toy = toys.occluded(n=4096)
    supervised = fit(Design.of(toy.prompts), toy.x)
    whole, faded, gone = occlusion(toy.x, toy.prompts, supervised, trainer(64, k=2), alphas=(0, 0.7, 1))
    assert whole.named["IO"] > 0.9
    assert whole.named["S"] < 0.2
    assert faded.named["S"] > whole.named["S"] + 0.3
    assert gone.named["S"] > 0.9
    assert gone.named["IO"] < 0.1


def test_where_both_are_as_large_nothing_is_drowned() -> None:
    toy = toys.occluded(n=4096, ratio=1.0)
    (whole,) = occlusion(toy.x, toy.prompts, fit(Design.of(toy.prompts), toy.x), trainer(64, k=2), alphas=(0,))
    assert whole.named["IO"] > 0.6
    assert whole.named["S"] > 0.6


def test_coupled_vectors_do_not_say_what_io_is() -> None:
    toy = toys.occluded(n=64)
    supervised = fit(Design.of(toy.prompts, "coupled"), toy.x)
    with pytest.raises(ValueError, match="no u_IO"):
        occlusion(toy.x, toy.prompts, supervised, trainer(4, k=1))


@pytest.mark.parametrize(("noise", "fewest", "most"), [(0.3, 1, 3), (1.0, 6, 32)])
def test_a_binary_attribute_splits_where_there_is_more_to_say(noise: float, fewest: int, most: int) -> None:
    toy = toys.split(n=4096, noise=noise)
    codes = trainer(32, k=1)(toy.x).encode(toy.x, toy.prompts)
    for value in (0, 1):
        found = splitting(codes, toy.prompts.pos, value)
        assert fewest <= len(found.latents) <= most
        assert found.f1[-1] > 0.9
